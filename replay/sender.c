#include "replay/sender.h"

#include "journal/base/util.h"

struct find {
	struct mw_store *st;
	struct mw_arena *arena;
	const uint8_t *id;
	struct mw_spf *ret;
	int found;
};

static int
consider(void *arg, const struct mw_record *r)
{
	struct find *f = arg;
	MW_BUF_AUTO meta = {0};
	struct mw_spf s;
	if (r->type != MW_TYPE_SPF || mw_record_meta(f->st, r, &meta, NULL) < 0 ||
	    mw_spf_decode(meta.p, meta.n, f->arena, &s, NULL) < 0)
		return 0;
	if (memcmp(s.ref, f->id, MW_ID_LEN) == 0) {
		*f->ret = s;
		f->found = 1;
	}
	return 0;
}

int
mw_sender_find(struct mw_store *st, const uint8_t id[MW_ID_LEN], struct mw_arena *a,
               struct mw_spf *ret)
{
	struct find f = {.st = st, .arena = a, .id = id, .ret = ret};
	struct mw_str key = mw_str((const char *)id, 6);
	if (mw_store_find(st, MW_KEY_ID, key, consider, &f, NULL) < 0)
		return 0; /* the mail itself is shown all the same */
	return f.found;
}

static void
set(json_t *o, const char *key, struct mw_str s)
{
	if (s.n)
		(void)json_object_set_new(o, key, mw_json_str(s));
}

json_t *
mw_sender_json(const struct mw_spf *s)
{
	char time[32];
	json_t *o = json_object();
	if (!o)
		return NULL;
	mw_time_rfc3339(time, sizeof time, s->time_us);
	set(o, "result", mw_strz(mw_spf_result_name(s->result)));
	set(o, "ip", s->ip);
	set(o, "helo", s->helo);
	set(o, "from", s->from);
	set(o, "record", s->record);
	set(o, "explanation", s->explanation);
	set(o, "reason", s->reason);
	set(o, "library", s->library);
	if (s->code)
		(void)json_object_set_new(o, "code", json_integer(s->code));
	(void)json_object_set_new(o, "time", json_string(time));
	(void)json_object_set_new(o, "duration_ms",
	                          json_integer((json_int_t)(s->took_us / 1000)));
	return o;
}
