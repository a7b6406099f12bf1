#include "replay/mtalog.h"

#include "journal/base/util.h"
#include "replay/mtalog_int.h"

#include <string.h>

/* "<address>": a quoted local part may hold anything, so quotes are read as such. */
bool
mw_mtalog_angle(struct mw_str *s, struct mw_str *ret)
{
	bool quoted = false;
	if (!s->n || s->p[0] != '<')
		return false;
	for (size_t i = 1; i < s->n; i++) {
		char c = s->p[i];
		if (quoted && c == '\\') {
			i++;
		} else if (c == '"') {
			quoted = !quoted;
		} else if (c == '>' && !quoted) {
			*ret = mw_str(s->p + 1, i - 1);
			*s = mw_str(s->p + i + 1, s->n - i - 1);
			return true;
		}
	}
	return false;
}

/* Long and short ones of Postfix, those of Sendmail; "NOQUEUE" is none. */
bool
mw_mtalog_queue_id(struct mw_str *s, struct mw_str *ret)
{
	struct mw_str rest = *s, id;
	if (!word(&rest, is_alnum, &id) || id.n < 5 || id.n > 40 ||
	    mw_str_eq(id, MW_STR("NOQUEUE")) || mw_str_eq(id, MW_STR("warning")) ||
	    mw_str_eq(id, MW_STR("fatal")) || mw_str_eq(id, MW_STR("panic")) ||
	    mw_str_eq(id, MW_STR("error")))
		return false;
	bool digit = false;
	for (size_t i = 0; i < id.n; i++)
		digit = digit || is_digit(id.p[i]);
	if (!digit && id.n < 9) /* "connect", "timeout": words, not IDs */
		return false;
	*ret = id;
	*s = rest;
	return true;
}

bool
mw_mtalog_is_one(struct mw_str s, const char *const *names)
{
	for (; *names; names++)
		if (mw_str_eq(s, mw_strz(*names)))
			return true;
	return false;
}

static const char *const postfix_names[] = {"smtpd",   "cleanup", "qmgr",    "nqmgr",
                                            "oqmgr",   "pickup",  "bounce",  "smtp",
                                            "lmtp",    "local",   "virtual", "pipe",
                                            "discard", "error",   "retry",   "postsuper",
                                            "qmqpd",   "trace",   "defer",   NULL};

static uint32_t
number(struct mw_str s)
{
	uint32_t v = 0;
	for (size_t i = 0; i < s.n && is_digit(s.p[i]) && v < 400000000; i++)
		v = v * 10 + (uint32_t)(s.p[i] - '0');
	return v;
}

/* "tag[pid]: " or, as RFC 5424 has it, "tag pid msgid structured-data ". */
static bool
tag(struct mw_str *s, struct mw_str *ret_tag, uint32_t *ret_pid)
{
	struct mw_str t, pid, junk, rest = *s;
	size_t n = 0;
	while (n < s->n && s->p[n] != '[' && s->p[n] != ':' && s->p[n] != ' ')
		n++;
	t = mw_str(s->p, n);
	rest = mw_str(s->p + n, s->n - n);
	if (eat(&rest, MW_STR("["))) {
		if (!until(&rest, "]", &pid) || !eat(&rest, MW_STR(": ")))
			return false;
	} else if (eat(&rest, MW_STR(" "))) {
		if (!until(&rest, " ", &pid) || !until(&rest, " ", &junk) ||
		    !(eat(&rest, MW_STR("- ")) ||
		      (rest.n && rest.p[0] == '[' && until(&rest, "] ", &junk))))
			return false;
	} else {
		return false;
	}
	*ret_tag = t;
	*ret_pid = number(pid);
	*s = rest;
	return true;
}

bool
mw_mtalog_line(struct mw_str line, int64_t ref_us, struct mw_mta_event *ret)
{
	struct mw_str s, t;
	memset(ret, 0, sizeof *ret);
	while (line.n && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
		line.n--;
	if (!mw_mtalog_time(line, ref_us, &ret->time_us, &ret->coarse, &s)) {
		ret->time_us = 0;
		return false;
	}
	if (!until(&s, " ", &ret->host) || !tag(&s, &t, &ret->pid))
		return false;
	size_t slash = t.n;
	while (slash && t.p[slash - 1] != '/')
		slash--;
	ret->service = mw_str(t.p + slash, t.n - slash);
	bool sendmail = !slash && (mw_str_eq(t, MW_STR("sm-mta")) ||
	                           mw_str_eq(t, MW_STR("sendmail")));
	ret->mta = slash || sendmail;
	if (slash && mw_mtalog_is_one(ret->service, postfix_names))
		mw_mtalog_postfix(s, ret);
	else if (sendmail)
		mw_mtalog_sendmail(s, ret);
	return ret->kind != MW_MTA_NOTHING;
}
