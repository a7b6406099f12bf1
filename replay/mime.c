#include "replay/mime.h"

#include "journal/base/util.h"
#include "replay/cmd.h"

#include <errno.h>
#include <gmime/gmime.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* What bytes that are no UTF-8 stand for. */
static const uint16_t cp1252[32] = {0x20ac, 0xfffd, 0x201a, 0x0192, 0x201e, 0x2026,
                                    0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039,
                                    0x0152, 0xfffd, 0x017d, 0xfffd, 0xfffd, 0x2018,
                                    0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                    0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0xfffd,
                                    0x017e, 0x0178};

static GMimeParserOptions *parser_options;

static void
init(void)
{
	static const char *charsets[] = {"utf-8", "windows-1252", NULL};
	/* GpgME, which GMime brings, has SIGPIPE ignored: `list | head` would go on and
	 * complain */
	struct sigaction before;
	(void)sigaction(SIGPIPE, NULL, &before);
	g_mime_init();
	(void)sigaction(SIGPIPE, &before, NULL);
	parser_options = g_mime_parser_options_new();
	g_mime_parser_options_set_fallback_charsets(parser_options, charsets);
}

/* Any thread may be the first. They are only read from then on. */
static GMimeParserOptions *
options(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	(void)pthread_once(&once, init);
	return parser_options;
}

static void
put_char(uint32_t c, struct mw_buf *out)
{
	char u[6];
	mw_buf_put(out, u, (size_t)g_unichar_to_utf8(c, u));
}

static uint32_t
get_char(const char *p, size_t len)
{
	const unsigned char *u = (const unsigned char *)p;
	uint32_t c = len == 1   ? u[0]
	             : len == 2 ? u[0] & 0x1fU
	                        : u[0] & (len == 3 ? 15U : 7U);
	for (size_t i = 1; i < len; i++)
		c = c << 6 | (u[i] & 0x3fU);
	return c;
}

/* How many bytes a character that begins so has; 0: none begins so. */
static size_t
char_length(unsigned char c)
{
	return c < 0x80   ? 1
	       : c < 0xc2 ? 0
	       : c < 0xe0 ? 2
	       : c < 0xf0 ? 3
	       : c < 0xf5 ? 4
	                  : 0;
}

/* Bytes as UTF-8 where they are, else as windows-1252. Returns how many were taken: all,
 * or, unless last, all but the beginning of a character. */
static size_t
put_guessed(const char *p, size_t n, bool last, struct mw_buf *out)
{
	size_t i = 0;
	while (i < n) {
		size_t plain = i;
		while (plain < n && (unsigned char)p[plain] < 0x80)
			plain++;
		mw_buf_put(out, p + i, plain - i);
		i = plain;
		if (i == n)
			break;
		unsigned char c = (unsigned char)p[i];
		size_t len = mw_utf8_char(p + i, n - i);
		if (len) {
			mw_buf_put(out, p + i, len);
			i += len;
			continue;
		}
		size_t want = char_length(c), k = 1;
		while (k < want && i + k < n && ((unsigned char)p[i + k] & 0xc0) == 0x80)
			k++;
		if (!last && k < want && i + k == n)
			return i;
		put_char(c < 0xa0 ? cp1252[c - 0x80] : c, out);
		i++;
	}
	return n;
}

static void
put_string(const char *s, struct mw_buf *out)
{
	if (s)
		(void)put_guessed(s, strlen(s), true, out);
}

/* A C string of it: NUL becomes a blank, at most max bytes. */
static char *
string_of(struct mw_str s, size_t max)
{
	size_t n = MW_MIN(s.n, max);
	char *z = g_malloc(n + 1);
	for (size_t i = 0; i < n; i++)
		z[i] = s.p[i] ? s.p[i] : ' ';
	z[n] = '\0';
	return z;
}

/* The encoded word in base64 that z begins with: its payload, and where that ends; NULL
 * where there is none such, or none that is well formed. */
static const char *
base64_word(const char *z, const char **ret_end)
{
	static const char of_base64[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t charset = strncmp(z, "=?", 2) == 0 ? strcspn(z + 2, "? \t\r\n=") : 0;
	const char *p = z + 2 + charset;
	if (!charset || p[0] != '?' || (p[1] | 0x20) != 'b' || p[2] != '?')
		return NULL;
	p += 3;
	const char *end = p + strspn(p, of_base64);
	end += strspn(end, "=");
	*ret_end = end;
	return strncmp(end, "?=", 2) == 0 ? p : NULL;
}

/* GMime takes words of one charset that follow each other for one, as a character may lie
 * in both, and ends it where the base64 of the first ends with "=": the others were lost.
 * In quoted printable they are not. Frees z. */
static char *
base64_to_quoted(char *z)
{
	GString *out = NULL;
	const char *done = z, *end;
	for (const char *p = strstr(z, "=?"); p; p = strstr(p, "=?")) {
		const char *text = base64_word(p, &end);
		gint state = 0;
		guint save = 0;
		if (!text) {
			p += 2;
			continue;
		}
		gsize n = (gsize)(end - text);
		guchar *raw = g_malloc(n + 4);
		n = g_base64_decode_step(text, n, raw, &state, &save);
		out = out ? out : g_string_new(NULL);
		g_string_append_len(out, done, text - 2 - done);
		g_string_append(out, "Q?");
		for (gsize i = 0; i < n; i++)
			g_string_append_printf(out, "=%02X", raw[i]);
		g_free(raw);
		done = end;
		p = end + 2;
	}
	if (!out)
		return z;
	g_string_append(out, done);
	g_free(z);
	return g_string_free(out, FALSE);
}

bool
mw_mime_header_plain(struct mw_str raw)
{
	for (size_t i = 0; i < raw.n; i++)
		if ((unsigned char)raw.p[i] >= 0x80 ||
		    (raw.p[i] == '?' && i && raw.p[i - 1] == '='))
			return false;
	return true;
}

void
mw_mime_header(struct mw_str raw, struct mw_buf *out)
{
	if (mw_mime_header_plain(raw)) {
		mw_buf_putstr(out, raw);
		return;
	}
	/* One thread at a time: iconv loads its charsets under locks of its own. */
	static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
	char *z = base64_to_quoted(string_of(raw, MW_MIME_FIELD));
	(void)pthread_mutex_lock(&mu);
	char *text = g_mime_utils_header_decode_text(options(), z);
	(void)pthread_mutex_unlock(&mu);
	put_string(text, out);
	g_free(text);
	g_free(z);
}

/* ---- folding ---- */

static void
put_blank(bool *space, struct mw_buf *out)
{
	if (!*space)
		mw_buf_putc(out, ' ');
	*space = true;
}

/* Letters that have no decomposition but that people take for these. */
static const char *
plain_letter(uint32_t c)
{
	switch (c) {
	case 0xdf: /* sharp s */
		return "ss";
	case 0xe6:
		return "ae";
	case 0xf0:
	case 0x111:
		return "d";
	case 0xf8:
		return "o";
	case 0xfe:
		return "th";
	case 0x127:
		return "h";
	case 0x131: /* i without dot */
		return "i";
	case 0x142:
		return "l";
	case 0x153:
		return "oe";
	case 0x3c2: /* sigma at the end of a word */
		return "\xcf\x83";
	case 0x2018:
	case 0x2019:
	case 0x201b:
	case 0x2bc:
		return "'";
	case 0x201c:
	case 0x201d:
	case 0x201e:
	case 0xab:
	case 0xbb:
		return "\"";
	case 0x2010:
	case 0x2012:
	case 0x2013:
	case 0x2014:
	case 0x2015:
	case 0x2212:
		return "-";
	default:
		return NULL;
	}
}

/* Soft hyphens, joiners, direction marks: not seen, so not compared. */
static bool
is_unseen(uint32_t c)
{
	return c == 0xad || (c >= 0x200b && c <= 0x200f) ||
	       (c >= 0x202a && c <= 0x202e) || (c >= 0x2060 && c <= 0x2064) ||
	       c == 0xfeff;
}

static void
fold_char(uint32_t c, bool *space, struct mw_buf *out)
{
	gunichar v[G_UNICHAR_MAX_DECOMPOSITION_LENGTH];
	gsize n = g_unichar_fully_decompose(c, TRUE, v, MW_COUNT(v));
	for (gsize i = 0; i < n && i < MW_COUNT(v); i++) {
		GUnicodeType type = g_unichar_type(v[i]);
		if (type == G_UNICODE_NON_SPACING_MARK ||
		    type == G_UNICODE_ENCLOSING_MARK)
			continue;
		if (g_unichar_isspace(v[i]) || type == G_UNICODE_CONTROL) {
			put_blank(space, out);
			continue;
		}
		uint32_t l = g_unichar_tolower(v[i]);
		const char *z = plain_letter(l);
		if (z)
			mw_buf_puts(out, z);
		else
			put_char(l, out);
		*space = false;
	}
}

/* The ASCII that s begins with; how much that is. */
static size_t
fold_ascii(struct mw_str s, bool *space, struct mw_buf *out)
{
	size_t i = 0;
	bool was = *space;
	out->why = out->failed ? out->why : mw_buf_reserve(out, s.n);
	out->failed = out->failed || out->why < 0;
	if (out->failed)
		return 0;
	uint8_t *to = out->p + out->n;
	for (; i < s.n && (unsigned char)s.p[i] < 0x80; i++) {
		char c = s.p[i];
		bool blank = c <= ' ' || c == 0x7f;
		if (!blank)
			*to++ = (uint8_t)(c >= 'A' && c <= 'Z' ? c + 32 : c);
		else if (!was)
			*to++ = ' ';
		was = blank;
	}
	out->n = (size_t)(to - out->p);
	*space = was;
	return i;
}

void
mw_mime_fold(struct mw_str s, bool *space, struct mw_buf *out)
{
	for (size_t i = s.n ? fold_ascii(s, space, out) : 0; i < s.n;) {
		unsigned char c = (unsigned char)s.p[i];
		if (c < 0x80) {
			i++;
			if (c <= ' ' || c == 0x7f) {
				put_blank(space, out);
				continue;
			}
			mw_buf_putc(out, (char)(c >= 'A' && c <= 'Z' ? c + 32 : c));
			*space = false;
			continue;
		}
		size_t len = mw_utf8_char(s.p + i, s.n - i);
		uint32_t u = len ? get_char(s.p + i, len) : 0xfffd;
		if (!is_unseen(u))
			fold_char(u, space, out);
		i += len ? len : 1;
	}
}

void
mw_mime_fold_needle(struct mw_str text, struct mw_buf *out)
{
	bool space = true;
	size_t was = out->n;
	mw_mime_fold(text, &space, out);
	if (out->n > was && out->p[out->n - 1] == ' ')
		out->n--;
}

/* ---- a part's header ---- */

static bool
is_safe_charset(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!g_ascii_isalnum(s[i]) && !strchr("-_.:+", s[i]))
			return false;
	return n > 0 && n < 64;
}

static void
read_type(struct mw_str type, struct mw_mime_part *ret, struct mw_buf *name)
{
	char *z = base64_to_quoted(string_of(type, MW_MIME_FIELD));
	GMimeContentType *t = g_mime_content_type_parse(options(), z);
	g_free(z);
	if (!t)
		return;
	const char *charset = g_mime_content_type_get_parameter(t, "charset");
	const char *boundary = g_mime_content_type_get_parameter(t, "boundary");
	size_t n = boundary ? strlen(boundary) : 0;
	if (charset && is_safe_charset(charset))
		(void)g_strlcpy(ret->charset, charset, sizeof ret->charset);
	while (n && (boundary[n - 1] == ' ' || boundary[n - 1] == '\t'))
		n--;
	if (g_mime_content_type_is_type(t, "multipart", "*") && n &&
	    n <= MW_MIME_BOUNDARY) {
		memcpy(ret->boundary, boundary, n);
		ret->n_boundary = n;
		ret->kind = g_mime_content_type_is_type(t, "multipart", "digest")
		                ? MW_MIME_DIGEST
		                : MW_MIME_MULTIPART;
	} else if (g_mime_content_type_is_type(t, "message", "rfc822") ||
	           g_mime_content_type_is_type(t, "message", "global") ||
	           g_mime_content_type_is_type(t, "message", "news")) {
		ret->kind = MW_MIME_MESSAGE;
	} else if (g_mime_content_type_is_type(t, "text", "html")) {
		ret->kind = MW_MIME_HTML;
	} else if (g_mime_content_type_is_type(t, "text", "*") ||
	           g_mime_content_type_is_type(t, "multipart", "*") ||
	           g_mime_content_type_is_type(t, "message", "*")) {
		ret->kind = MW_MIME_TEXT;
	} else {
		ret->kind = MW_MIME_OTHER;
	}
	put_string(g_mime_content_type_get_parameter(t, "name"), name);
	g_object_unref(t);
}

static void
read_disposition(struct mw_str value, struct mw_buf *name)
{
	char *z = base64_to_quoted(string_of(value, MW_MIME_FIELD));
	GMimeContentDisposition *d = g_mime_content_disposition_parse(options(), z);
	g_free(z);
	if (!d)
		return;
	const char *file = g_mime_content_disposition_get_parameter(d, "filename");
	/* Both names count, where they differ: either may be what a person saw. */
	if (file && name->n)
		mw_buf_putc(name, '\n');
	put_string(file, name);
	g_object_unref(d);
}

void
mw_mime_part_read(struct mw_str type, struct mw_str disposition, struct mw_str encoding,
                  bool in_digest, struct mw_mime_part *ret, struct mw_buf *name)
{
	*ret = (struct mw_mime_part){.kind = in_digest ? MW_MIME_MESSAGE : MW_MIME_TEXT};
	mw_buf_clear(name);
	/* What is no type at all is shown by mail programs as text. */
	if (memchr(type.p ? type.p : "", '/', type.n))
		read_type(type, ret, name);
	if (mw_str_trim(disposition).n)
		read_disposition(disposition, name);
	char *z = string_of(mw_str_trim(encoding), 40);
	GMimeContentEncoding e = g_mime_content_encoding_from_string(z);
	g_free(z);
	ret->encoding = (int)e;
	ret->identity = e != GMIME_CONTENT_ENCODING_BASE64 &&
	                e != GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE &&
	                e != GMIME_CONTENT_ENCODING_UUENCODE;
}

/* ---- a text part's content ---- */

struct mw_mime_text {
	GMimeEncoding enc;
	bool identity;
	GIConv cd;           /* (GIConv)-1: guess */
	struct mw_buf plain; /* transfer-decoded, not yet converted */
};

struct mw_mime_text *
mw_mime_text_new(void)
{
	struct mw_mime_text *t = calloc(1, sizeof *t);
	if (t)
		t->cd = (GIConv)-1;
	(void)options();
	return t;
}

static void
close_charset(struct mw_mime_text *t)
{
	if (t->cd != (GIConv)-1)
		(void)g_iconv_close(t->cd);
	t->cd = (GIConv)-1;
}

void
mw_mime_text_free(struct mw_mime_text *t)
{
	if (!t)
		return;
	close_charset(t);
	mw_buf_free(&t->plain);
	free(t);
}

void
mw_mime_text_begin(struct mw_mime_text *t, const struct mw_mime_part *p)
{
	static const char *const guess[] = {"us-ascii", "utf-8", "utf8", "ascii"};
	bool guessed = !p->charset[0];
	close_charset(t);
	mw_buf_clear(&t->plain);
	t->identity = p->identity;
	g_mime_encoding_init_decode(&t->enc, (GMimeContentEncoding)p->encoding);
	for (size_t i = 0; i < MW_COUNT(guess); i++)
		guessed = guessed || g_ascii_strcasecmp(p->charset, guess[i]) == 0;
	if (!guessed)
		t->cd = g_iconv_open("UTF-8", g_mime_charset_iconv_name(p->charset));
}

/* Converts what is gathered; without last the beginning of a character stays. */
static void
convert(struct mw_mime_text *t, bool last, struct mw_buf *out)
{
	char *in = (char *)t->plain.p;
	size_t left = t->plain.n;
	if (t->cd == (GIConv)-1) {
		size_t k = put_guessed(in, left, last, out);
		in += k;
		left -= k;
	}
	while (left && t->cd != (GIConv)-1) {
		char room[4096], *to = room;
		size_t n = sizeof room, before = left;
		size_t r = g_iconv(t->cd, &in, &left, &to, &n);
		int e = r == (size_t)-1 ? errno : 0;
		(void)put_guessed(room, sizeof room - n, true, out);
		if (e == EINVAL && !last)
			break;
		if (e == EILSEQ || e == EINVAL || (e && e != E2BIG) ||
		    (e == E2BIG && left == before && n == sizeof room)) {
			put_char(0xfffd, out);
			in++;
			left--;
		}
	}
	if (left)
		memmove(t->plain.p, in, left);
	t->plain.n = left;
}

void
mw_mime_text_put(struct mw_mime_text *t, const void *p, size_t n, struct mw_buf *out)
{
	if (t->identity) {
		mw_buf_put(&t->plain, p, n);
	} else if (mw_buf_reserve(&t->plain, g_mime_encoding_outlen(&t->enc, n)) == 0) {
		char *to = (char *)t->plain.p + t->plain.n;
		t->plain.n += g_mime_encoding_step(&t->enc, p, n, to);
	}
	convert(t, false, out);
}

void
mw_mime_text_end(struct mw_mime_text *t, struct mw_buf *out)
{
	/* Base64 that ends without its "=", or was cut: what it says is taken still. */
	unsigned open = (unsigned)t->enc.state & 0xff;
	if (!t->identity && t->enc.encoding == GMIME_CONTENT_ENCODING_BASE64 && open >= 2)
		mw_mime_text_put(t, "==", 4 - MW_MIN(open, 3U), out);
	if (!t->identity && mw_buf_reserve(&t->plain, 64) == 0)
		t->plain.n += g_mime_encoding_flush(&t->enc, "", 0,
		                                    (char *)t->plain.p + t->plain.n);
	convert(t, true, out);
	close_charset(t);
}
