/* keys.c - the private recovery keys of --key: loaded once, wiped at the end. */
#include "journal/base/fs.h"
#include "journal/base/util.h"
#include "journal/codec/keyring.h"
#include "replay/cmd.h"

#include <errno.h>
#include <string.h>

enum {
	MOST_PASSPHRASE = 4096
};

/* The first line of the file, without its line end. */
static int
read_passphrase(const char *file, char **ret, size_t *ret_n, struct mw_err *err)
{
	void *text = NULL;
	size_t n = 0;
	int r = mw_fs_read_named(file, MOST_PASSPHRASE, &text, &n);
	if (r < 0) {
		errno = -r;
		return mw_fail_errno(err, "cannot read the passphrase in %s", file);
	}
	*ret = text;
	*ret_n = strcspn(text, "\r\n");
	if (*ret_n > n)
		*ret_n = n;
	return 0;
}

int
mw_cli_load_keys(struct mw_cli *cli, const char *passphrase_file, struct mw_err *err)
{
	char *passphrase = NULL;
	size_t n = 0;
	int r = 0;
	if (cli->n_keys == 0)
		return passphrase_file
		           ? mw_fail(err, MW_EUSAGE, "--passphrase-file belongs to --key")
		           : 0;
	cli->secret = calloc(cli->n_keys, MW_KEY_LEN);
	if (!cli->secret)
		return mw_fail(err, MW_ENOMEM, "out of memory");
	if (passphrase_file)
		r = read_passphrase(passphrase_file, &passphrase, &n, err);
	for (size_t k = 0; r == 0 && k < cli->n_keys; k++) {
		r = mw_keyring_load_secret(cli->keys[k],
		                           mw_str(passphrase ? passphrase : "", n),
		                           cli->secret + k * MW_KEY_LEN, err);
		cli->n_secret += r == 0;
	}
	if (passphrase)
		explicit_bzero(passphrase, n);
	free(passphrase);
	return r;
}

void
mw_cli_wipe_keys(struct mw_cli *cli)
{
	if (cli->secret)
		explicit_bzero(cli->secret, cli->n_keys * MW_KEY_LEN);
	free(cli->secret);
	cli->secret = NULL;
	cli->n_secret = 0;
}
