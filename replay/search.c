#include "replay/search.h"

#include "replay/mime_walk.h"

#include <stdlib.h>
#include <string.h>

enum {
	WINDOW = 64 * 1024 /* folded text that is gathered before it is looked through */
};

struct list { /* needles of one kind */
	struct mw_buf *v;
	size_t n, longest;
	bool found;
};

struct mw_search {
	struct mw_walk *walk;
	struct list body, attachment;
	struct mw_buf text; /* folded, not yet looked through, after an overlap */
	bool space;
};

static bool
has_one(const struct list *l, const void *p, size_t n)
{
	for (size_t i = 0; i < l->n; i++)
		if (n >= l->v[i].n && memmem(p, n, l->v[i].p, l->v[i].n))
			return true;
	return false;
}

/* Looks through what is gathered; the end stays, for what goes on there. */
static void
look(struct mw_search *s, bool whole)
{
	size_t overlap = s->body.longest ? s->body.longest - 1 : 0;
	if (!s->body.found && s->text.n)
		s->body.found = has_one(&s->body, s->text.p, s->text.n);
	if (whole || s->body.found)
		mw_buf_clear(&s->text);
	else if (s->text.n > overlap)
		mw_buf_drop(&s->text, s->text.n - overlap);
}

static void
on_text(void *arg, struct mw_str utf8)
{
	struct mw_search *s = arg;
	if (s->body.found || !s->body.n)
		return;
	mw_mime_fold(utf8, &s->space, &s->text);
	if (s->text.n >= WINDOW)
		look(s, false);
}

static void
on_pause(void *arg)
{
	struct mw_search *s = arg;
	look(s, true);
	s->space = true;
}

static void
on_name(void *arg, struct mw_str utf8)
{
	struct mw_search *s = arg;
	MW_BUF_AUTO folded = {0};
	bool space = true;
	if (s->attachment.found || !s->attachment.n)
		return;
	mw_mime_fold(utf8, &space, &folded);
	s->attachment.found = has_one(&s->attachment, folded.p, folded.n);
}

static int
fill(struct list *l, const char *option, const char *const *v, size_t n,
     struct mw_err *err)
{
	l->v = calloc(n + 1, sizeof *l->v);
	if (!l->v)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		struct mw_buf *b = &l->v[l->n++];
		mw_mime_fold_needle(mw_strz(v[i]), b);
		if (mw_buf_ok(b))
			return mw_fail(err, MW_ENOMEM, "out of memory");
		if (!b->n)
			return mw_fail(err, MW_EUSAGE,
			               "%s: there is nothing in '%s' to look for", option,
			               v[i]);
		l->longest = b->n > l->longest ? b->n : l->longest;
	}
	return 0;
}

int
mw_search_new(const struct mw_search_for *what, struct mw_search **ret,
              struct mw_err *err)
{
	struct mw_search *s = calloc(1, sizeof *s);
	if (!s)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	const struct mw_walk_on on = {on_text, on_pause, on_name, s};
	s->space = true;
	s->walk = mw_walk_new(&on);
	int r = s->walk ? 0 : mw_fail(err, MW_ENOMEM, "out of memory");
	if (!r)
		r = fill(&s->body, "--body", what->body, what->n_body, err);
	if (!r)
		r = fill(&s->attachment, "--attachment", what->attachment,
		         what->n_attachment, err);
	if (r) {
		mw_search_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

static void
list_free(struct list *l)
{
	for (size_t i = 0; i < l->n; i++)
		mw_buf_free(&l->v[i]);
	free(l->v);
}

void
mw_search_free(struct mw_search *s)
{
	if (!s)
		return;
	mw_walk_free(s->walk);
	list_free(&s->body);
	list_free(&s->attachment);
	mw_buf_free(&s->text);
	free(s);
}

int
mw_search_put(void *search, const void *p, size_t n)
{
	struct mw_search *s = search;
	mw_walk_put(s->walk, p, n);
	return mw_buf_ok(&s->text) ? MW_ENOMEM : 0;
}

void
mw_search_forget(struct mw_search *s)
{
	mw_walk_end(s->walk);
	mw_buf_clear(&s->text);
	s->body.found = s->attachment.found = false;
	s->space = true;
}

bool
mw_search_matches(struct mw_search *s)
{
	mw_walk_end(s->walk);
	bool yes =
	    (!s->body.n || s->body.found) && (!s->attachment.n || s->attachment.found);
	mw_search_forget(s);
	return yes;
}

/* A header value, decoded and folded. */
static void
fold_header(struct mw_str raw, struct mw_buf *out)
{
	MW_BUF_AUTO text = {0};
	bool space = true;
	bool plain = mw_mime_header_plain(raw);
	if (!plain)
		mw_mime_header(raw, &text);
	mw_mime_fold(plain ? raw : mw_buf_str(&text), &space, out);
}

bool
mw_search_header(struct mw_str raw, const char *const *v, size_t n)
{
	MW_BUF_AUTO have = {0};
	MW_BUF_AUTO want = {0};
	fold_header(raw, &have);
	for (size_t k = 0; k < n; k++) {
		mw_buf_clear(&want);
		mw_mime_fold_needle(mw_strz(v[k]), &want);
		if (want.n && have.n >= want.n && memmem(have.p, have.n, want.p, want.n))
			return true;
	}
	return false;
}

bool
mw_search_folded(struct mw_str raw, const struct mw_str *v, size_t n)
{
	MW_BUF_AUTO have = {0};
	fold_header(raw, &have);
	for (size_t k = 0; k < n; k++)
		if (v[k].n && have.n >= v[k].n && memmem(have.p, have.n, v[k].p, v[k].n))
			return true;
	return false;
}

struct mw_str *
mw_search_needles(const char *const *v, size_t n, struct mw_arena *a)
{
	struct mw_str *ret = mw_arena_alloc(a, (n + 1) * sizeof *ret);
	MW_BUF_AUTO b = {0};
	for (size_t k = 0; ret && k < n; k++) {
		mw_buf_clear(&b);
		mw_mime_fold_needle(mw_strz(v[k]), &b);
		ret[k] = mw_arena_str(a, mw_buf_str(&b));
		if (mw_buf_ok(&b) < 0 || !ret[k].p)
			ret = NULL;
	}
	return ret;
}
