#include "milter/spf.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <spf2/spf.h>
#include <spf2/spf_dns_cache.h>
#include <spf2/spf_dns_resolv.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "journal/base/clock.h"
#include "journal/base/util.h"

enum {
	LOOKUPS_MAX = 150, /* of one check; a record can ask for 111 */
	CACHE_BITS = 8,
	LABEL_MAX = 63,
	DOMAIN_MAX = 253
};

struct mw_spf_server {
	SPF_dns_server_t dns; /* our layer, above the cache and the resolver */
	SPF_dns_server_t *below;
	SPF_server_t *spf;
	const struct mw_zone *zone;
	char library[32];
	/* of the check under way */
	int64_t deadline_mono_us;
	unsigned lookups;
	bool has_record; /* the first TXT look-up has been made */
	struct mw_buf record;
};

/* ---- our layer of DNS ---- */

/* What a resolver would call a name that cannot be asked for. */
static bool
bad_name(const char *name)
{
	size_t label = 0, n = strlen(name);
	if (n == 0 || n > DOMAIN_MAX + 1)
		return true;
	for (size_t i = 0; i < n; i++) {
		if (name[i] != '.')
			label++;
		else if (label == 0)
			return true;
		else
			label = 0;
		if (label > LABEL_MAX)
			return true;
	}
	return false;
}

/* One value into rr; false: no memory, or it does not parse. */
static bool
put_value(SPF_dns_rr_t *rr, ns_type type, const char *value)
{
	int k = rr->num_rr;
	size_t n = type == ns_t_a      ? sizeof(struct in_addr)
	           : type == ns_t_aaaa ? sizeof(struct in6_addr)
	                               : strlen(value) + 1;
	if (SPF_dns_rr_buf_realloc(rr, k, n) != SPF_E_SUCCESS)
		return false;
	if (type == ns_t_a) {
		if (inet_pton(AF_INET, value, &rr->rr[k]->a) != 1)
			return false;
	} else if (type == ns_t_aaaa) {
		if (inet_pton(AF_INET6, value, &rr->rr[k]->aaaa) != 1)
			return false;
	} else {
		memcpy(rr->rr[k]->txt, value, n); /* txt, mx and ptr share the place */
	}
	rr->num_rr = k + 1;
	return true;
}

static SPF_dns_rr_t *
from_zone(SPF_dns_server_t *dns, const struct mw_zone *z, const char *domain,
          ns_type type)
{
	static const int status[] = {[MW_ZONE_DATA] = NETDB_SUCCESS,
	                             [MW_ZONE_NO_DATA] = NO_DATA,
	                             [MW_ZONE_NO_NAME] = HOST_NOT_FOUND,
	                             [MW_ZONE_TIMEOUT] = TRY_AGAIN};
	const char *name = type == ns_t_a      ? "A"
	                   : type == ns_t_aaaa ? "AAAA"
	                   : type == ns_t_mx   ? "MX"
	                   : type == ns_t_ptr  ? "PTR"
	                                       : "TXT";
	const char *value[MW_ZONE_VALUES];
	size_t n;
	enum mw_zone_answer a = mw_zone_lookup(z, domain, name, value, &n);
	SPF_dns_rr_t *rr = SPF_dns_rr_new_init(dns, domain, type, 3600, status[a]);
	for (size_t i = 0; rr && i < n; i++)
		if (!put_value(rr, type, value[i]))
			rr->herrno = TRY_AGAIN;
	return rr;
}

/* The first TXT look-up is that of the checked domain. */
static void
note_record(struct mw_spf_server *s, const SPF_dns_rr_t *rr)
{
	if (s->has_record)
		return;
	s->has_record = true;
	for (int i = 0; rr->herrno == NETDB_SUCCESS && i < rr->num_rr; i++) {
		const char *txt = rr->rr[i]->txt;
		if (strncasecmp(txt, "v=spf1", 6) != 0)
			continue;
		size_t room = MW_SPF_RECORD_MAX - MW_MIN(s->record.n, MW_SPF_RECORD_MAX);
		if (s->record.n && room) {
			mw_buf_putc(&s->record, '\n');
			room--;
		}
		mw_buf_put(&s->record, txt, MW_MIN(strlen(txt), room));
	}
}

static SPF_dns_rr_t *
lookup(SPF_dns_server_t *dns, const char *domain, ns_type type, int should_cache)
{
	struct mw_spf_server *s = dns->hook;
	const struct mw_clock *clock = mw_clock_system();
	if (type == ns_t_spf) /* RFC 7208 3.1: not to be asked for any more */
		return SPF_dns_rr_new_init(dns, domain, type, 0, NO_DATA);
	if (bad_name(domain))
		return SPF_dns_rr_new_init(dns, domain, type, 0, HOST_NOT_FOUND);
	if (++s->lookups > LOOKUPS_MAX || clock->mono_us(clock) > s->deadline_mono_us)
		return SPF_dns_rr_new_init(dns, domain, type, 0, TRY_AGAIN);
	SPF_dns_rr_t *rr = s->zone ? from_zone(dns, s->zone, domain, type)
	                           : SPF_dns_lookup(s->below, domain, type, should_cache);
	if (!rr) /* out of memory; the library would not look at it */
		_exit(71);
	if (rr->herrno == NO_RECOVERY) /* any other failure is temporary: RFC 7208 4.4 */
		rr->herrno = TRY_AGAIN;
	if (type == ns_t_txt)
		note_record(s, rr);
	return rr;
}

/* ---- the library ---- */

static void on_error(const char *file, int line, const char *text)
    __attribute__((noreturn));

/* The library would abort. What it says may hold what strangers wrote. */
static void
on_error(const char *file, int line, const char *text)
{
	(void)file;
	(void)line;
	(void)text;
	_exit(70);
}

int
mw_spf_server_new(const char *host, const struct mw_zone *zone,
                  struct mw_spf_server **ret, struct mw_err *err)
{
	int major = 0, minor = 0, patch = 0;
	struct mw_spf_server *s = calloc(1, sizeof *s);
	if (!s)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	SPF_error_handler = on_error;
	SPF_warning_handler = NULL;
	SPF_info_handler = NULL;
	SPF_debug_handler = NULL;
	SPF_get_lib_version(&major, &minor, &patch);
	(void)snprintf(s->library, sizeof s->library, "libspf2 %d.%d.%d", major, minor,
	               patch);
	s->zone = zone;
	s->dns.name = "mailwal";
	s->dns.lookup = lookup;
	s->dns.hook = s;
	if (!zone) {
		SPF_dns_server_t *net = SPF_dns_resolv_new(NULL, NULL, 0);
		s->below = net ? SPF_dns_cache_new(net, NULL, 0, CACHE_BITS) : NULL;
	}
	if (zone || s->below)
		s->spf = SPF_server_new_dns(&s->dns, 0);
	if (!s->spf || (host && SPF_server_set_rec_dom(s->spf, host) != SPF_E_SUCCESS)) {
		mw_spf_server_free(s);
		return mw_fail(err, MW_ENOMEM, "libspf2 does not start");
	}
	(void)SPF_server_set_sanitize(s->spf, 1); /* never fails */
	*ret = s;
	return 0;
}

void
mw_spf_server_free(struct mw_spf_server *s)
{
	if (s->spf)
		SPF_server_free(s->spf);
	if (s->below)
		SPF_dns_free(s->below);
	mw_buf_free(&s->record);
	free(s);
}

/* ---- one check ---- */

struct answer {
	const char *result;
	int code;
	struct mw_buf reason, explanation;
};

/* No byte of it may end a field early or run on without end. */
static void
put_text(struct mw_buf *b, const char *z)
{
	if (z && b->n < MW_SPF_TEXT_MAX)
		mw_buf_put(b, z, strnlen(z, MW_SPF_TEXT_MAX - b->n));
}

static bool
malformed(const char *name)
{
	for (size_t i = 0; name[i]; i++)
		if (i >= MW_SPF_NAME_MAX || (unsigned char)name[i] < ' ' ||
		    name[i] == 0x7f)
			return true;
	return false;
}

static const char *
result_name(SPF_result_t r, SPF_errcode_t code)
{
	switch (r) {
	case SPF_RESULT_NEUTRAL:
		return "neutral";
	case SPF_RESULT_PASS:
		return "pass";
	case SPF_RESULT_FAIL:
		return "fail";
	case SPF_RESULT_SOFTFAIL:
		return "softfail";
	case SPF_RESULT_NONE:
		return "none";
	case SPF_RESULT_TEMPERROR:
		return "temperror";
	case SPF_RESULT_PERMERROR:
		return "permerror";
	case SPF_RESULT_INVALID: /* the caller decides */
		break;
	}
	return code == SPF_E_DNS_ERROR || code == SPF_E_NO_MEMORY ? "temperror"
	                                                          : "permerror";
}

static void
query(struct mw_spf_server *s, SPF_request_t *rq, struct answer *a)
{
	SPF_response_t *rp = NULL;
	SPF_errcode_t e = SPF_request_query_mailfrom(rq, &rp);
	if (!rp) {
		a->result = "temperror";
		a->code = (int)e;
		put_text(&a->reason, SPF_strerror(e));
		return;
	}
	if (e == SPF_E_SUCCESS) /* what the call says knows more */
		e = SPF_response_errcode(rp);
	a->code = (int)e;
	a->result = result_name(SPF_response_result(rp), e);
	put_text(&a->reason, SPF_response_get_header_comment(rp));
	if (SPF_response_messages(rp) > 0) {
		put_text(&a->reason, a->reason.n ? "; " : "");
		put_text(&a->reason, SPF_error_message(SPF_response_message(rp, 0)));
	}
	if (SPF_response_result(rp) == SPF_RESULT_FAIL)
		put_text(&a->explanation, SPF_response_get_explanation(rp));
	SPF_response_free(rp);
	(void)s;
}

static void
check(struct mw_spf_server *s, const char *const ask[MW_SPF_ASK_N], struct answer *a)
{
	const char *ip = ask[MW_SPF_ASK_IP], *helo = ask[MW_SPF_ASK_HELO];
	const char *from = ask[MW_SPF_ASK_FROM];
	struct in_addr v4;
	struct in6_addr v6;
	a->result = "none";
	if (malformed(helo) || malformed(from)) {
		put_text(&a->reason, "the HELO name or the sender is malformed");
		return;
	}
	if (!*helo && !*from) {
		put_text(&a->reason, "neither a HELO name nor a sender");
		return;
	}
	bool is4 = inet_pton(AF_INET, ip, &v4) == 1;
	if (!is4 && inet_pton(AF_INET6, ip, &v6) != 1) {
		put_text(&a->reason, "the client has no IP address");
		return;
	}
	if (!is4 && IN6_IS_ADDR_V4MAPPED(&v6)) {
		memcpy(&v4, &v6.s6_addr[12], sizeof v4);
		is4 = true;
	}
	SPF_request_t *rq = SPF_request_new(s->spf);
	int e = !rq   ? (int)SPF_E_NO_MEMORY
	        : is4 ? (int)SPF_request_set_ipv4(rq, v4)
	              : (int)SPF_request_set_ipv6(rq, v6);
	if (e == 0 && *helo)
		e = (int)SPF_request_set_helo_dom(rq, helo);
	if (e == 0 && *from)
		e = SPF_request_set_env_from(rq, from);
	if (e == 0) {
		query(s, rq, a);
	} else {
		a->result = "temperror";
		a->code = e;
		put_text(&a->reason, "the question was not taken");
	}
	if (rq)
		SPF_request_free(rq);
}

static void
put_field(struct mw_buf *out, struct mw_str s)
{
	mw_buf_putstr(out, s);
	mw_buf_putc(out, '\0');
}

void
mw_spf_check(struct mw_spf_server *s, const char *const ask[MW_SPF_ASK_N],
             struct mw_buf *out)
{
	struct answer a = {.result = "none"};
	const struct mw_clock *clock = mw_clock_system();
	char code[16];
	s->deadline_mono_us =
	    clock->mono_us(clock) + strtoll(ask[MW_SPF_ASK_MS], NULL, 10) * 1000;
	s->lookups = 0;
	s->has_record = false;
	mw_buf_clear(&s->record);
	check(s, ask, &a);
	(void)snprintf(code, sizeof code, "%d", a.code);
	put_field(out, mw_strz(a.result));
	put_field(out, mw_strz(code));
	put_field(out, mw_buf_str(&s->record));
	put_field(out, mw_buf_str(&a.explanation));
	put_field(out, mw_buf_str(&a.reason));
	put_field(out, mw_strz(s->library));
	mw_buf_free(&a.reason);
	mw_buf_free(&a.explanation);
}
