#include "replay/mime_walk.h"

#include "journal/base/util.h"
#include "replay/mime_html.h"

#include <stdlib.h>
#include <string.h>

enum state {
	HEADER,
	TEXT,
	IGNORE /* a preamble, an epilogue, what is no text */
};

enum {
	TYPE,
	DISPOSITION,
	ENCODING,
	FIELDS
};

struct level {
	char boundary[MW_MIME_BOUNDARY];
	size_t n;
	bool digest;
};

struct mw_walk {
	struct mw_walk_on on;
	enum state state;
	struct level level[MW_WALK_DEPTH];
	size_t depth;
	char line[MW_WALK_LINE];
	size_t n;
	bool inside; /* the line goes on from an earlier piece */
	struct mw_buf field[FIELDS];
	bool seen[FIELDS];
	int current; /* field that a continuation belongs to; -1: none of ours */
	bool html;
	struct mw_html strip;
	struct mw_mime_text *decoder;
	struct mw_buf out, shown, name;
};

static void
begin_header(struct mw_walk *w)
{
	w->state = HEADER;
	w->current = -1;
	for (size_t i = 0; i < FIELDS; i++) {
		mw_buf_clear(&w->field[i]);
		w->seen[i] = false;
	}
}

struct mw_walk *
mw_walk_new(const struct mw_walk_on *on)
{
	struct mw_walk *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	w->on = *on;
	w->decoder = mw_mime_text_new();
	if (!w->decoder) {
		free(w);
		return NULL;
	}
	begin_header(w);
	return w;
}

void
mw_walk_free(struct mw_walk *w)
{
	if (!w)
		return;
	mw_mime_text_free(w->decoder);
	for (size_t i = 0; i < FIELDS; i++)
		mw_buf_free(&w->field[i]);
	mw_buf_free(&w->out);
	mw_buf_free(&w->shown);
	mw_buf_free(&w->name);
	free(w);
}

/* Hands on what the decoder gave. */
static void
give(struct mw_walk *w)
{
	struct mw_buf *b = &w->out;
	if (w->html) {
		mw_html_put(&w->strip, mw_buf_str(&w->out), &w->shown);
		b = &w->shown;
	}
	if (b->n)
		w->on.text(w->on.arg, mw_buf_str(b));
	mw_buf_clear(&w->out);
	mw_buf_clear(&w->shown);
}

static void
end_part(struct mw_walk *w)
{
	if (w->state == TEXT) {
		mw_mime_text_end(w->decoder, &w->out);
		give(w);
	}
	w->on.pause(w->on.arg);
	w->state = IGNORE;
}

/* The line without its end. */
static struct mw_str
bare(const char *p, size_t n)
{
	if (n && p[n - 1] == '\n')
		n--;
	if (n && p[n - 1] == '\r')
		n--;
	return mw_str(p, n);
}

/* Which level's boundary is this line? -1: none. */
static int
boundary_at(const struct mw_walk *w, struct mw_str s, bool *ret_close)
{
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	for (size_t i = w->depth; i-- > 0;) {
		const struct level *l = &w->level[i];
		if (s.n < l->n + 2 || memcmp(s.p + 2, l->boundary, l->n) != 0)
			continue;
		size_t rest = s.n - 2 - l->n;
		*ret_close = rest == 2 && memcmp(s.p + s.n - 2, "--", 2) == 0;
		if (rest == 0 || *ret_close)
			return (int)i;
	}
	return -1;
}

static void
push(struct mw_walk *w, const struct mw_mime_part *p)
{
	struct level *l = &w->level[w->depth++];
	memcpy(l->boundary, p->boundary, p->n_boundary);
	l->n = p->n_boundary;
	l->digest = p->kind == MW_MIME_DIGEST;
	w->state = IGNORE;
}

static void
end_header(struct mw_walk *w)
{
	struct mw_mime_part p;
	bool digest = w->depth && w->level[w->depth - 1].digest;
	mw_mime_part_read(mw_buf_str(&w->field[TYPE]), mw_buf_str(&w->field[DISPOSITION]),
	                  mw_buf_str(&w->field[ENCODING]), digest, &p, &w->name);
	if (w->name.n)
		w->on.name(w->on.arg, mw_buf_str(&w->name));
	bool multi = p.kind == MW_MIME_MULTIPART || p.kind == MW_MIME_DIGEST;
	if (multi && w->depth < MW_WALK_DEPTH) {
		push(w, &p);
	} else if (p.kind == MW_MIME_MESSAGE && p.identity) {
		begin_header(w);
	} else if (p.kind == MW_MIME_OTHER) {
		w->state = IGNORE;
	} else {
		w->state = TEXT;
		w->html = p.kind == MW_MIME_HTML;
		mw_html_init(&w->strip);
		mw_mime_text_begin(w->decoder, &p);
	}
}

static void
keep(struct mw_walk *w, struct mw_str s)
{
	struct mw_buf *b = w->current >= 0 ? &w->field[w->current] : NULL;
	if (b && b->n < MW_MIME_FIELD)
		mw_buf_put(b, s.p, MW_MIN(s.n, MW_MIME_FIELD - b->n));
}

static void
header_line(struct mw_walk *w, struct mw_str s, bool first)
{
	static const char *const names[FIELDS] = {"Content-Type", "Content-Disposition",
	                                          "Content-Transfer-Encoding"};
	struct mw_str name, value;
	if (first && s.n == 0) {
		end_header(w);
		return;
	}
	if (!first || s.p[0] == ' ' || s.p[0] == '\t') {
		keep(w, s);
		return;
	}
	w->current = -1;
	if (!mw_str_cut(s, ':', &name, &value))
		return;
	name = mw_str_trim(name);
	for (int i = 0; i < FIELDS; i++) {
		if (w->seen[i] || !mw_str_ieq(name, mw_strz(names[i])))
			continue;
		w->seen[i] = true;
		w->current = i;
		keep(w, value);
	}
}

/* A line, or a piece of a long one. */
static void
take_line(struct mw_walk *w, const char *p, size_t n)
{
	bool first = !w->inside, close = false;
	struct mw_str s = bare(p, n);
	w->inside = n == 0 || p[n - 1] != '\n';
	if (first && s.n >= 2 && p[0] == '-' && p[1] == '-') {
		int k = boundary_at(w, s, &close);
		if (k >= 0) {
			end_part(w);
			w->depth = (size_t)k + !close;
			if (!close)
				begin_header(w);
			return;
		}
	}
	if (w->state == HEADER) {
		header_line(w, s, first);
	} else if (w->state == TEXT) {
		mw_mime_text_put(w->decoder, p, n, &w->out);
		give(w);
	}
}

void
mw_walk_put(struct mw_walk *w, const void *data, size_t n)
{
	const char *p = data;
	while (n) {
		const char *lf = memchr(p, '\n', n);
		size_t k = lf ? (size_t)(lf - p) + 1 : n;
		if (w->n == 0 && lf && k <= sizeof w->line) {
			take_line(w, p, k); /* as it stands */
		} else {
			k = MW_MIN(k, sizeof w->line - w->n);
			memcpy(w->line + w->n, p, k);
			w->n += k;
			if (w->line[w->n - 1] == '\n' || w->n == sizeof w->line) {
				size_t len = w->n;
				w->n = 0;
				take_line(w, w->line, len);
			}
		}
		p += k;
		n -= k;
	}
}

void
mw_walk_end(struct mw_walk *w)
{
	if (w->n) {
		size_t n = w->n;
		w->n = 0;
		take_line(w, w->line, n);
	}
	if (w->state == HEADER)
		end_header(w);
	end_part(w);
	w->depth = 0;
	w->inside = false;
	begin_header(w);
}
