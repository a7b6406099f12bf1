/* mbox_write.c - a message's content as mailwal writes it into an mbox (mbox.h). */
#include "replay/mbox.h"

void
mw_mbox_writer_init(struct mw_mbox_writer *w, int (*sink)(void *, const void *, size_t),
                    void *arg)
{
	*w = (struct mw_mbox_writer){.sink = sink,
	                             .arg = arg,
	                             .deciding = true,
	                             .last = '\n'};
}

static int
emit(struct mw_mbox_writer *w, const char *p, size_t n)
{
	if (n)
		w->last = p[n - 1];
	return n ? w->sink(w->arg, p, n) : 0;
}

/* The start of a line is known: write what was held back. */
static int
decided(struct mw_mbox_writer *w, bool quote)
{
	int r = quote ? emit(w, ">", 1) : 0;
	for (; !r && w->marks; w->marks--)
		r = emit(w, ">", 1);
	if (!r)
		r = emit(w, "From ", w->match);
	w->match = 0;
	w->deciding = false;
	return r;
}

static int
one_byte(struct mw_mbox_writer *w, char c)
{
	if (w->deciding) {
		if (!w->match && c == '>') {
			w->marks++;
			return 0;
		}
		if (c == "From "[w->match])
			return ++w->match == 5 ? decided(w, true) : 0;
		int r = decided(w, false);
		if (r)
			return r;
	}
	if (c == '\n')
		w->deciding = true;
	return emit(w, &c, 1);
}

int
mw_mbox_writer_put(void *writer, const void *p, size_t n)
{
	struct mw_mbox_writer *w = writer;
	const char *s = p;
	for (size_t i = 0; i < n; i++) {
		int r = 0;
		if (w->cr && s[i] != '\n') /* a bare CR stays */
			r = one_byte(w, '\r');
		w->cr = s[i] == '\r';
		if (!r && !w->cr)
			r = one_byte(w, s[i]);
		if (r)
			return r;
	}
	return 0;
}

int
mw_mbox_writer_end(struct mw_mbox_writer *w)
{
	int r = w->deciding ? decided(w, false) : 0;
	if (!r && w->cr)
		r = emit(w, "\r", 1);
	if (!r && w->last != '\n')
		r = emit(w, "\n", 1);
	return r ? r : emit(w, "\n", 1);
}
