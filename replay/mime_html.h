/* mime_html.h - HTML as a reader sees it: tags off, entities decoded. For searching.
 *
 * A state machine over valid UTF-8 cut between characters; anything is taken. What marks
 * a paragraph, cell or line becomes a blank, other tags vanish; style and script are left
 * out. Memory: the struct. */
#ifndef MW_REPLAY_MIME_HTML_H
#define MW_REPLAY_MIME_HTML_H

#include "journal/base/buf.h"
#include "journal/base/str.h"

#include <stdbool.h>

struct mw_html {
	enum {
		MW_HTML_TEXT,
		MW_HTML_TAG,
		MW_HTML_ENTITY
	} state;
	char word[12]; /* the tag's name, or the entity's */
	size_t n;
	bool named;  /* the tag's name has ended */
	char hidden; /* 's' in style, 'c' in script; 0 */
};

void mw_html_init(struct mw_html *h);
void mw_html_put(struct mw_html *h, struct mw_str utf8, struct mw_buf *out);

#endif
