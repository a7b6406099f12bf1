#include "replay/mime_html.h"

#include "journal/base/util.h"

#include <stdint.h>
#include <string.h>

/* U+00A0 … U+00FF by name, and some that people type. */
static const char latin[96][8] = {
    "nbsp",   "iexcl",  "cent",   "pound",  "curren", "yen",    "brvbar", "sect",
    "uml",    "copy",   "ordf",   "laquo",  "not",    "shy",    "reg",    "macr",
    "deg",    "plusmn", "sup2",   "sup3",   "acute",  "micro",  "para",   "middot",
    "cedil",  "sup1",   "ordm",   "raquo",  "frac14", "frac12", "frac34", "iquest",
    "Agrave", "Aacute", "Acirc",  "Atilde", "Auml",   "Aring",  "AElig",  "Ccedil",
    "Egrave", "Eacute", "Ecirc",  "Euml",   "Igrave", "Iacute", "Icirc",  "Iuml",
    "ETH",    "Ntilde", "Ograve", "Oacute", "Ocirc",  "Otilde", "Ouml",   "times",
    "Oslash", "Ugrave", "Uacute", "Ucirc",  "Uuml",   "Yacute", "THORN",  "szlig",
    "agrave", "aacute", "acirc",  "atilde", "auml",   "aring",  "aelig",  "ccedil",
    "egrave", "eacute", "ecirc",  "euml",   "igrave", "iacute", "icirc",  "iuml",
    "eth",    "ntilde", "ograve", "oacute", "ocirc",  "otilde", "ouml",   "divide",
    "oslash", "ugrave", "uacute", "ucirc",  "uuml",   "yacute", "thorn",  "yuml"};
static const struct {
	char name[8];
	uint32_t c;
} others[] = {{"amp", '&'},      {"lt", '<'},       {"gt", '>'},        {"quot", '"'},
              {"apos", '\''},    {"euro", 0x20ac},  {"hellip", 0x2026}, {"ndash", 0x2013},
              {"mdash", 0x2014}, {"lsquo", 0x2018}, {"rsquo", 0x2019},  {"ldquo", 0x201c},
              {"rdquo", 0x201d}, {"scaron", 0x161}, {"Scaron", 0x160},  {"oelig", 0x153},
              {"OElig", 0x152},  {"bull", 0x2022}};

void
mw_html_init(struct mw_html *h)
{
	*h = (struct mw_html){.state = MW_HTML_TEXT};
}

static void
put_char(uint32_t c, struct mw_buf *out)
{
	if (c < 0x80) {
		mw_buf_putc(out, (char)c);
	} else if (c < 0x800) {
		mw_buf_putc(out, (char)(0xc0 | c >> 6));
		mw_buf_putc(out, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		mw_buf_putc(out, (char)(0xe0 | c >> 12));
		mw_buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		mw_buf_putc(out, (char)(0x80 | (c & 0x3f)));
	} else {
		mw_buf_putc(out, (char)(0xf0 | c >> 18));
		mw_buf_putc(out, (char)(0x80 | (c >> 12 & 0x3f)));
		mw_buf_putc(out, (char)(0x80 | (c >> 6 & 0x3f)));
		mw_buf_putc(out, (char)(0x80 | (c & 0x3f)));
	}
}

/* The number of "#233" or "#xe9"; 0: none that can be a character. */
static uint32_t
number_of(const char *s)
{
	unsigned base = *s == 'x' || *s == 'X' ? 16 : 10;
	uint32_t v = 0;
	for (s += base == 16; *s; s++) {
		unsigned d = *s >= '0' && *s <= '9'   ? (unsigned)(*s - '0')
		             : *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a') + 10
		             : *s >= 'A' && *s <= 'F' ? (unsigned)(*s - 'A') + 10
		                                      : 99;
		if (d >= base)
			return 0;
		v = v * base + d;
		if (v > 0x10ffff)
			return 0;
	}
	return v >= 0xd800 && v < 0xe000 ? 0 : v;
}

static uint32_t
entity(const char *s)
{
	if (*s == '#')
		return number_of(s + 1);
	for (uint32_t i = 0; i < MW_COUNT(latin); i++)
		if (strcmp(latin[i], s) == 0)
			return 0xa0 + i;
	for (size_t i = 0; i < MW_COUNT(others); i++)
		if (strcmp(others[i].name, s) == 0)
			return others[i].c;
	return 0;
}

static void
end_entity(struct mw_html *h, bool closed, struct mw_buf *out)
{
	h->word[h->n] = '\0';
	h->state = MW_HTML_TEXT;
	uint32_t c = entity(h->word);
	if (h->hidden)
		return;
	if (c) {
		put_char(c, out);
		return;
	}
	mw_buf_putc(out, '&');
	mw_buf_put(out, h->word, h->n);
	if (closed)
		mw_buf_putc(out, ';');
}

/* Tags inside a word: what they stand in reads on without a blank. */
static bool
is_inline(const char *tag)
{
	static const char *const names[] = {"a",      "abbr", "b",     "big",  "cite",
	                                    "code",   "em",   "font",  "i",    "ins",
	                                    "kbd",    "mark", "s",     "span", "sub",
	                                    "strong", "sup",  "small", "tt",   "u",
	                                    "wbr",    "del",  "bdo",   "q",    "o:p"};
	for (size_t i = 0; i < MW_COUNT(names); i++)
		if (strcmp(names[i], tag) == 0)
			return true;
	return false;
}

static void
end_tag(struct mw_html *h, struct mw_buf *out)
{
	h->word[h->n] = '\0';
	h->state = MW_HTML_TEXT;
	const char *tag = h->word + (h->word[0] == '/');
	bool end = h->word[0] == '/', style = strcmp(tag, "style") == 0,
	     script = strcmp(tag, "script") == 0;
	if (style || script) {
		char which = style ? 's' : 'c';
		if (!end && !h->hidden)
			h->hidden = which;
		else if (end && h->hidden == which)
			h->hidden = 0;
	}
	if (!h->hidden && !is_inline(tag) && h->word[0] != '!')
		mw_buf_putc(out, ' ');
}

static void
in_tag(struct mw_html *h, char c, struct mw_buf *out)
{
	if (c == '>') {
		end_tag(h, out);
		return;
	}
	bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	              (c >= '0' && c <= '9') || c == ':' ||
	              ((c == '/' || c == '!') && h->n == 0);
	if (!letter)
		h->named = h->named || h->n > 0;
	else if (!h->named && h->n + 1 < sizeof h->word)
		h->word[h->n++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
	else
		h->named = true;
}

/* True: c belongs to it. */
static bool
in_entity(struct mw_html *h, char c, struct mw_buf *out)
{
	bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	              (c >= '0' && c <= '9') || (c == '#' && h->n == 0);
	if (letter && h->n + 1 < sizeof h->word) {
		h->word[h->n++] = c;
		return true;
	}
	end_entity(h, c == ';', out);
	return c == ';';
}

void
mw_html_put(struct mw_html *h, struct mw_str s, struct mw_buf *out)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (h->state == MW_HTML_ENTITY && in_entity(h, c, out))
			continue;
		if (h->state == MW_HTML_TAG) {
			in_tag(h, c, out);
		} else if (c == '<' || (c == '&' && !h->hidden)) {
			h->state = c == '<' ? MW_HTML_TAG : MW_HTML_ENTITY;
			h->n = 0;
			h->named = false;
		} else if (!h->hidden) {
			mw_buf_putc(out, c);
		}
	}
}
