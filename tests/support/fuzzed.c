#include "tests/support/fuzzed.h"

#include "journal/base/log.h"
#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>

struct mw_store *fuzzed_store;
struct mw_capture fuzzed_cap;
static char dir[] = "/tmp/mw-fuzz-XXXXXX";
static struct mw_fs fs;

void
require(bool ok, const char *what)
{
	if (!ok) {
		(void)fprintf(stderr, "%s\n", what);
		abort();
	}
}

static int
no_sync(const struct mw_fs *f, int fd)
{
	(void)f;
	(void)fd;
	return 0;
}

static void
clean_up(void)
{
	char cmd[128];
	/* The store stays open: its libraries may have ended before this. */
	(void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	require(system(cmd) == 0, "cannot clean up");
}

void
fuzzed_start(void)
{
	static char journal[64];
	struct mw_conf *conf = NULL;
	MW_BUF_AUTO report = {0};
	require(mkdtemp(dir), "no directory");
	(void)snprintf(journal, sizeof journal, "%s/j", dir);
	fs = *mw_fs_posix();
	fs.sync = no_sync;
	struct mw_store_opts o = {.dir = journal,
	                          .mode = MW_STORE_WRITE,
	                          .fs = &fs,
	                          .no_index = true,
	                          .level = 1};
	require(mw_store_create(journal, NULL, NULL, NULL) == 0, "no journal");
	require(mw_store_open(&o, &fuzzed_store, NULL) == 0, "the journal does not open");
	require(mw_conf_load(NULL, &conf, &report, NULL) == 0, "no settings");
	conf->recipient_limit = 20;
	conf->message_limit = 100000;
	require(mw_capture_init(&fuzzed_cap, fuzzed_store, conf, NULL) == 0,
	        "no capture");
	mw_log_open("fuzz", false, (enum mw_level)0); /* hostile input has much to say */
	(void)atexit(clean_up);
}
