/* cmd_config.c - mailwal config check | show | explain | sample. */
#include "journal/base/util.h"
#include "replay/cmd.h"

#include <stdio.h>
#include <string.h>

static const struct mw_cmd *
self(void)
{
	return mw_cmd_find("config");
}

struct told {
	bool json;
	unsigned errors, warnings;
};

static void
on_told(void *arg, const struct mw_conf_told *d)
{
	struct told *t = arg;
	t->errors += d->error;
	t->warnings += !d->error;
	if (!t->json)
		return;
	json_t *o = json_object();
	(void)json_object_set_new(o, "message_type",
	                          json_string(d->error ? "error" : "warning"));
	(void)json_object_set_new(o, "file", mw_json_str(mw_strz(d->file)));
	if (d->line) {
		(void)json_object_set_new(o, "line", json_integer(d->line));
		(void)json_object_set_new(o, "column",
		                          json_integer((json_int_t)d->column));
	}
	(void)json_object_set_new(o, "message", mw_json_str(mw_strz(d->text)));
	mw_cli_json(o);
}

/* Loads with all diagnostics on standard error. 0, or the exit status. */
static int
load(const struct mw_cli *cli, const char *file, struct mw_conf **ret)
{
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int r = mw_conf_load(file, ret, &report, &err);
	if (report.n)
		fputs(mw_buf_cstr(&report), stderr);
	return r < 0 ? mw_cli_error(cli, &err) : 0;
}

/* A mistake that has no place: the file itself cannot be read. */
static void
json_failure(const char *file, const struct mw_err *err)
{
	mw_cli_json(json_pack("{s:s, s:o, s:o}", "message_type", "error", "file",
	                      mw_json_str(mw_strz(file ? file : "")), "message",
	                      mw_json_str(mw_strz(err->msg))));
}

/* As `mailwald -t` does: with a look at the recovery keys. */
static int
check(const struct mw_cli *cli, const char *file)
{
	static const struct mw_conf_probe probes[] = {
	    {"recovery_key", mw_store_probe_recovery}};
	struct mw_conf *conf = NULL;
	struct told told = {.json = cli->json};
	const struct mw_conf_load_opts o = {probes, MW_COUNT(probes), on_told, &told};
	MW_BUF_AUTO report = {0};
	struct mw_err err = {0};
	int r = mw_conf_load_checked(file, &o, &conf, &report, &err);
	if (report.n)
		fputs(mw_buf_cstr(&report), stderr);
	if (r < 0 && cli->json && !told.errors) {
		json_failure(file, &err);
		told.errors++;
	}
	int status = r < 0 ? mw_cli_error(cli, &err) : 0;
	if (cli->json)
		mw_cli_json(json_pack("{s:s, s:s?, s:b, s:i, s:i}", "message_type",
		                      "summary", "file", file, "ok", status == 0,
		                      "errors", (int)told.errors, "warnings",
		                      (int)told.warnings));
	else if (status == 0 && !cli->quiet)
		printf("%s: ok\n", file ? file : "no file; the defaults are used");
	if (status == 0 && !cli->quiet) {
		MW_BUF_AUTO notes = {0};
		mw_conf_notes(conf, &notes);
		fputs(mw_buf_cstr(&notes), stderr);
	}
	mw_conf_free(conf);
	return status;
}

static void
json_setting(void *arg, const char *name, const char *value, const char *def)
{
	const bool *all = arg;
	if (!*all && strcmp(value, def) == 0)
		return;
	json_t *o = json_object();
	(void)json_object_set_new(o, "name", mw_json_str(mw_strz(name)));
	(void)json_object_set_new(o, "value", mw_json_str(mw_strz(value)));
	(void)json_object_set_new(o, "default", mw_json_str(mw_strz(def)));
	mw_cli_json(o);
}

static void
json_section(void *arg, const char *section, const char *word, const char *name,
             const char *value, const char *def)
{
	(void)arg;
	json_t *o = json_object();
	MW_BUF_AUTO full = {0};
	mw_buf_printf(&full, "%s.%s.%s", section, word, name);
	(void)json_object_set_new(o, "name", mw_json_str(mw_buf_str(&full)));
	(void)json_object_set_new(o, "value", mw_json_str(mw_strz(value)));
	(void)json_object_set_new(o, "default", mw_json_str(mw_strz(def)));
	(void)json_object_set_new(o, "section", json_string(section));
	(void)json_object_set_new(o, "section_name", mw_json_str(mw_strz(word)));
	(void)json_object_set_new(o, "setting", json_string(name));
	mw_cli_json(o);
}

static int
show(const struct mw_cli *cli, const char *file, bool all)
{
	struct mw_conf *conf = NULL;
	int status = load(cli, file, &conf);
	if (status == 0 && cli->json) {
		mw_conf_each(conf, json_setting, &all);
		/* Of a section everything: that it is there says something, too. */
		mw_conf_each_section(conf, json_section, NULL);
	} else if (status == 0) {
		MW_BUF_AUTO out = {0};
		mw_conf_print(conf, !all, &out);
		fputs(mw_buf_cstr(&out), stdout);
	}
	mw_conf_free(conf);
	return status;
}

static int
explain(const struct mw_cli *cli, const char *key)
{
	MW_BUF_AUTO out = {0};
	struct mw_err err = {0};
	if (mw_conf_explain(key, &out, &err) < 0)
		return mw_cli_error(cli, &err);
	if (cli->json)
		mw_cli_json(json_pack("{s:o, s:o}", "name", mw_json_str(mw_strz(key)),
		                      "text", mw_json_str(mw_buf_str(&out))));
	else
		fputs(mw_buf_cstr(&out), stdout);
	return 0;
}

static int
parse_show(const struct mw_cli *cli, int argc, char **argv, bool *all)
{
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "-a") == 0)
			*all = true;
		else if (strcmp(argv[i], "-n") == 0)
			*all = false;
		else
			return mw_cli_unknown(cli, self(), argv[i]);
	}
	return 0;
}

int
mw_cmd_config(struct mw_cli *cli, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	const char *file = cli->conf_file ? cli->conf_file : mw_conf_default_file();
	bool all = false;
	if (strcmp(verb, "check") == 0) {
		if (argc > 3 || (argc == 3 && argv[2][0] == '-' && argv[2][1]))
			return mw_cli_unknown(cli, self(), argv[argc - 1]);
		if (argc == 3 && argv[2][0] == '-')
			return check(cli, "/dev/stdin");
		return check(cli, argc == 3 ? argv[2] : file);
	}
	if (strcmp(verb, "show") == 0) {
		int status = parse_show(cli, argc, argv, &all);
		return status ? status : show(cli, file, all);
	}
	if (strcmp(verb, "explain") == 0) {
		if (argc != 3)
			return mw_cli_usage(cli, self(), "explain which setting?");
		return explain(cli, argv[2]);
	}
	if (strcmp(verb, "sample") == 0 && argc == 2) {
		MW_BUF_AUTO out = {0};
		mw_conf_sample(&out);
		if (cli->json)
			mw_cli_json(
			    json_pack("{s:o}", "text", mw_json_str(mw_buf_str(&out))));
		else
			fputs(mw_buf_cstr(&out), stdout);
		return 0;
	}
	if (verb[0] == '-' || (strcmp(verb, "sample") == 0 && argc > 2))
		return mw_cli_unknown(cli, self(), argv[verb[0] == '-' ? 1 : 2]);
	return verb[0] ? mw_cli_usage(cli, self(), "unknown verb '%s'", verb)
	               : mw_cli_usage(cli, self(), "check, show, explain or sample?");
}
