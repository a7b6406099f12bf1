/* cmd_keys.c - mailwal keys: recovery keys are made, shown and changed. */
#include "journal/base/bytes.h"
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "journal/codec/keyring.h"
#include "journal/retain/retain.h"
#include "journal/store/control.h"
#include "replay/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct ask {
	const char *out, *passphrase;
	bool here;
	char **file;
	size_t n_file;
};

static int
usage(struct mw_cli *cli, const char *text)
{
	return mw_cli_usage(cli, mw_cmd_find("keys"), "%s", text);
}

static int
parse(struct mw_cli *cli, int argc, char **argv, struct ask *a)
{
	struct mw_err err = {0};
	for (int i = 2; i < argc; i++) {
		int r = mw_cli_option(argc, argv, &i, "--out", &a->out, &err);
		if (r == 0)
			r = mw_cli_option(argc, argv, &i, "--new-passphrase-file",
			                  &a->passphrase, &err);
		if (r < 0)
			return mw_cli_error(cli, &err);
		if (r > 0)
			continue;
		if (strcmp(argv[i], "--on-this-host") == 0)
			a->here = true;
		else if (argv[i][0] == '-')
			return mw_cli_unknown(cli, mw_cmd_find("keys"), argv[i]);
		else
			a->file[a->n_file++] = argv[i];
	}
	return 0;
}

static void
id_text(const uint8_t pk[MW_KEY_LEN], char out[2 * MW_KEY_ID_LEN + 1])
{
	uint8_t id[MW_KEY_ID_LEN];
	mw_keyring_id(pk, id);
	mw_hex(out, id, sizeof id);
}

/* A private key on the host that captures defeats its purpose. */
static bool
captures_here(const struct mw_cli *cli)
{
	struct stat sb;
	for (size_t k = 0; k < cli->n_journals; k++) {
		MW_BUF_AUTO path = {.max = 8192};
		mw_buf_printf(&path, "%s/journal", cli->journals[k]);
		if (stat(mw_buf_cstr(&path), &sb) == 0)
			return true;
	}
	return false;
}

static int
keys_new(struct mw_cli *cli, const struct ask *a)
{
	struct mw_err err = {0};
	uint8_t pk[MW_KEY_LEN];
	MW_AUTOFREE void *pass = NULL;
	size_t n = 0;
	char id[2 * MW_KEY_ID_LEN + 1];
	if (a->out && strcmp(a->out, "-") == 0)
		return usage(cli, "--out: '-' is no file: two are made");
	if (!a->out || a->n_file)
		return usage(cli, "keys new needs --out FILE and nothing else");
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	if (captures_here(cli) && !a->here) {
		(void)
		    mw_fail(&err, MW_EPERM,
		            "this host has the journal %s: a private key made here could "
		            "read it",
		            cli->journals[0]);
		(void)mw_err_hint(&err,
		                  "make the pair elsewhere and bring the .pub file, or "
		                  "insist with --on-this-host");
		return mw_cli_error(cli, &err);
	}
	if (a->passphrase) {
		int r = mw_fs_read_named(a->passphrase, 4096, &pass, &n);
		if (r < 0) {
			errno = -r;
			(void)mw_fail_errno(&err, "cannot read the passphrase in %s",
			                    a->passphrase);
			return mw_cli_error(cli, &err);
		}
		size_t all = n;
		n = strcspn(pass, "\r\n");
		if (n < all && ((char *)pass)[n] == '\0')
			return usage(cli, "the passphrase has a byte 0 in it");
		if (n == 0)
			return usage(cli, "the passphrase is empty");
	}
	int r = mw_keyring_new(a->out, mw_str(pass ? pass : "", n), pk, &err);
	if (pass)
		explicit_bzero(pass, n);
	if (r < 0)
		return mw_cli_error(cli, &err);
	id_text(pk, id);
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:s, s:s}", "message_type", "summary", "key",
		                      id, "private", a->out));
	else
		printf("Recovery key %s\n"
		       "  %s      private: keep it off the capture host, and keep two "
		       "copies\n"
		       "  %s.pub  public: name it in mailwal.conf, recovery_key = FILE\n",
		       id, a->out, a->out);
	return 0;
}

/* ---- list ---- */

struct count {
	char id[2 * MW_KEY_ID_LEN + 1];
	uint64_t segments;
};

struct counting {
	struct count c[64];
	size_t n;
	uint64_t clear;
};

static void
count_one(void *arg, const uint8_t *id)
{
	struct counting *t = arg;
	char hex[2 * MW_KEY_ID_LEN + 1];
	if (!id) {
		t->clear++;
		return;
	}
	mw_hex(hex, id, MW_KEY_ID_LEN);
	size_t i = 0;
	while (i < t->n && strcmp(t->c[i].id, hex) != 0)
		i++;
	if (i == MW_COUNT(t->c))
		return;
	if (i == t->n)
		memcpy(t->c[t->n++].id, hex, sizeof hex);
	t->c[i].segments++;
}

static bool
is_current(struct mw_store *st, const char *id)
{
	for (size_t k = 0; k < mw_store_recovery_keys(st); k++) {
		char hex[2 * MW_KEY_ID_LEN + 1];
		id_text(mw_store_recovery_key(st, k), hex);
		if (strcmp(hex, id) == 0)
			return true;
	}
	return false;
}

/* Keys of new segments are listed even where no segment has them yet. */
static void
add_current(struct mw_store *st, struct counting *t)
{
	for (size_t k = 0; k < mw_store_recovery_keys(st); k++) {
		char hex[2 * MW_KEY_ID_LEN + 1];
		size_t i = 0;
		id_text(mw_store_recovery_key(st, k), hex);
		while (i < t->n && strcmp(t->c[i].id, hex) != 0)
			i++;
		if (i == t->n && t->n < MW_COUNT(t->c))
			memcpy(t->c[t->n++].id, hex, sizeof hex);
	}
}

static int
keys_list(struct mw_cli *cli, size_t k)
{
	struct mw_err err = {0};
	struct mw_store *st = cli->stores[k];
	struct counting t = {.n = 0};
	MW_AUTOFREE uint64_t *v = NULL;
	size_t n = 0;
	int r = mw_store_segments(st, &v, &n, &err);
	size_t all = n;
	for (size_t i = 0; r == 0 && i < all; i++) {
		r = mw_store_segment_keys(st, v[i], count_one, &t, &err);
		if (r == MW_ENOTFOUND) { /* pruned while we looked */
			mw_err_clear(&err);
			n--;
			r = 0;
		}
	}
	if (r < 0)
		return mw_cli_error(cli, &err);
	add_current(st, &t);
	for (size_t i = 0; i < t.n; i++) {
		bool now = is_current(st, t.c[i].id);
		if (cli->json)
			mw_cli_json(json_pack("{s:s, s:s, s:b, s:I}", "journal",
			                      cli->journals[k], "key", t.c[i].id,
			                      "current", now, "segments",
			                      (json_int_t)t.c[i].segments));
		else
			printf("%s  opens %llu of %zu segments%s\n", t.c[i].id,
			       (unsigned long long)t.c[i].segments, n,
			       now ? ", and every new one" : "");
	}
	if (!cli->json && t.clear)
		printf("%llu of %zu segments are readable without a key\n",
		       (unsigned long long)t.clear, n);
	if (!cli->json && t.n == 0)
		puts("no recovery key: the journal is readable to whoever can read its "
		     "files");
	return 0;
}

/* ---- rotate ---- */

static int
keys_rotate(struct mw_cli *cli, const struct ask *a)
{
	struct mw_err err = {0};
	MW_BUF_AUTO pk = {0};
	MW_BUF_AUTO reply = {.max = 4096};
	if (a->n_file == 0 || a->out)
		return usage(
		    cli, "keys rotate needs the public key files of all recovery keys");
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	const char *dir = cli->journals[0];
	if (cli->n_journals != 1)
		return usage(cli, "works on one journal at a time");
	int r = mw_store_load_recovery(a->file, a->n_file, &pk, &err);
	if (r == 0)
		r = mw_cli_as_owner(dir, &err);
	if (r == 0)
		r = mw_store_set_recovery(dir, pk.p, pk.n / MW_KEY_LEN, &err);
	mw_cli_as_self();
	if (r == 0)
		r = mw_control_call(dir, "roll", &reply, &err);
	bool daemon = r != MW_EUNAVAIL;
	if (r < 0 && daemon)
		return mw_cli_error(cli, &err);
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:I, s:b}", "message_type", "summary",
		                      "keys", (json_int_t)(pk.n / MW_KEY_LEN), "daemon",
		                      daemon));
	else
		printf("New segments are encrypted to %zu recovery key%s%s.\n"
		       "Older segments still open with the keys they were made for: keep "
		       "those.\n"
		       "Name the same files in mailwal.conf (recovery_key), or the next "
		       "start of "
		       "mailwald goes back.\n",
		       pk.n / MW_KEY_LEN, pk.n == MW_KEY_LEN ? "" : "s",
		       daemon ? ", from now on" : "");
	return 0;
}

/* ---- rewrap ---- */

struct rewrapped {
	uint64_t done, were, open, closed_to_us;
};

/* Every segment that a key at hand opens, the one that is written excepted. */
static int
rewrap_all(struct mw_cli *cli, const struct mw_buf *pk, struct rewrapped *ret,
           struct mw_err *err)
{
	struct mw_store *st = cli->stores[0];
	MW_AUTOFREE struct mw_segment_info *info = NULL;
	size_t n = 0;
	int r = mw_store_segment_info(st, &info, &n, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (mw_cli_stopped())
			return mw_fail(err, MW_ECANCEL, "interrupted");
		if (!info[i].settled && i + 1 == n) {
			ret->open++;
			continue;
		}
		int k =
		    mw_store_rewrap(st, info[i].number, pk->p, pk->n / MW_KEY_LEN, err);
		ret->done += k == 1;
		ret->were += k == 0;
		ret->closed_to_us += k == MW_EKEY || k == MW_EDAMAGED;
		r = k == MW_EKEY || k == MW_EDAMAGED ? 0 : MW_MIN(k, 0);
	}
	return r;
}

static int
rewrap_report(const struct mw_cli *cli, const struct rewrapped *w)
{
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:I, s:I, s:I, s:I}", "message_type",
		                      "summary", "rewrapped", (json_int_t)w->done,
		                      "already", (json_int_t)w->were, "still_open",
		                      (json_int_t)w->open, "not_opened",
		                      (json_int_t)w->closed_to_us));
	else
		printf("%llu %s with these keys too now, %llu did already\n",
		       (unsigned long long)w->done,
		       w->done == 1 ? "segment opens" : "segments open",
		       (unsigned long long)w->were);
	if (w->open && !cli->json)
		puts("The segment that is being written is left as it is: run this again "
		     "when it is closed.");
	if (w->closed_to_us)
		fprintf(
		    stderr,
		    "mailwal: %llu segments open with none of the keys given, or are "
		    "damaged\n  hint: give the other private keys with --key as well\n",
		    (unsigned long long)w->closed_to_us);
	return w->closed_to_us ? 3 : 0;
}

static int
keys_rewrap(struct mw_cli *cli, const struct ask *a)
{
	struct mw_err err = {0};
	MW_BUF_AUTO pk = {0};
	MW_AUTOCLOSE int lock = -1;
	struct rewrapped w = {0};
	if (a->n_file == 0 || a->out || cli->n_keys == 0)
		return usage(cli, "keys rewrap needs an old private key (--key FILE) and "
		                  "the new public key files");
	int status = mw_cli_begin(cli);
	if (status != 0)
		return status;
	if (cli->n_journals != 1)
		return usage(cli, "works on one journal at a time");
	mw_cli_catch_signals();
	int r = mw_store_load_recovery(a->file, a->n_file, &pk, &err);
	if (r == 0 && !cli->stores[0])
		r = mw_cli_open(cli, 0, &cli->stores[0], &err);
	if (r == 0)
		r = mw_cli_as_owner(cli->journals[0], &err);
	if (r == 0)
		r = mw_retain_lock(cli->journals[0], &lock, &err);
	if (r == 0)
		r = rewrap_all(cli, &pk, &w, &err);
	mw_cli_as_self();
	return r < 0 ? mw_cli_error(cli, &err) : rewrap_report(cli, &w);
}

int
mw_cmd_keys(struct mw_cli *cli, int argc, char **argv)
{
	struct ask a = {0};
	MW_AUTOFREE char **files = calloc((size_t)argc + 1, sizeof *files);
	if (!files)
		return usage(cli, "out of memory");
	a.file = files;
	if (argc < 2)
		return usage(cli, "new, list, rotate or rewrap?");
	int status = parse(cli, argc, argv, &a);
	if (status != 0)
		return status;
	if (strcmp(argv[1], "new") == 0)
		return keys_new(cli, &a);
	if (strcmp(argv[1], "rotate") == 0)
		return keys_rotate(cli, &a);
	if (strcmp(argv[1], "rewrap") == 0)
		return keys_rewrap(cli, &a);
	if (strcmp(argv[1], "list") != 0)
		return usage(cli, "new, list, rotate or rewrap?");
	if (a.n_file || a.out)
		return usage(cli, "keys list takes nothing more");
	status = mw_cli_begin(cli);
	for (size_t k = 0; status == 0 && k < cli->n_journals; k++) {
		struct mw_err err = {0};
		if (!cli->stores[k] && mw_cli_open(cli, k, &cli->stores[k], &err) < 0)
			return mw_cli_error(cli, &err);
		status = keys_list(cli, k);
	}
	return status;
}
