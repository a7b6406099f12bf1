#include "replay/run.h"

#include "journal/base/util.h"

#include <stdio.h>
#include <string.h>

struct args {
	struct mw_query q;
	const char *to, *report;
	bool dry;
};

static int
parse(struct mw_cli *cli, struct args *a, int argc, char **argv)
{
	const struct mw_cmd *self = mw_cmd_find("export");
	struct mw_err err = {0};
	for (int i = 1; i < argc; i++) {
		int r = mw_query_option(&a->q, argc, argv, &i, &err);
		if (!r)
			r = mw_cli_option(argc, argv, &i, "--to", &a->to, &err);
		if (!r)
			r = mw_cli_option(argc, argv, &i, "--report", &a->report, &err);
		if (!r &&
		    (r = mw_cli_option(argc, argv, &i, "-n|--dry-run", NULL, &err)) > 0)
			a->dry = true;
		if (!r)
			return mw_cli_unknown(cli, self, argv[i]);
		if (r < 0)
			return mw_cli_error(cli, &err);
	}
	if (mw_query_check(&a->q, &err))
		return mw_cli_error(cli, &err);
	if (!a->to)
		return mw_cli_usage(cli, self, "--to TARGET is missing");
	if (strncmp(a->to, "maildir:", 8) != 0 && strncmp(a->to, "mbox:", 5) != 0 &&
	    strncmp(a->to, "eml:", 4) != 0)
		return mw_cli_usage(cli, self,
		                    "export writes to maildir:DIR, mbox:FILE or eml:DIR; "
		                    "servers are for replay");
	if (strchr(a->to, '%'))
		return mw_cli_usage(cli, self,
		                    "export has one place for all mail; %% patterns "
		                    "are for replay");
	return mw_report_check(a->report, a->dry ? NULL : a->to, &err) < 0
	           ? mw_cli_error(cli, &err)
	           : 0;
}

int
mw_cmd_export(struct mw_cli *cli, int argc, char **argv)
{
	struct mw_err err = {0};
	struct mw_report report;
	struct args a = {0};
	MW_ARENA_AUTO *arena = mw_arena_new(0);
	if (!arena || mw_report_init(&report, &err))
		return mw_err_exit(MW_ENOMEM);
	mw_query_init(&a.q, arena);
	int status = parse(cli, &a, argc, argv);
	if (!status)
		status = mw_cli_begin(cli);
	if (status) {
		mw_report_done(&report);
		return status;
	}
	report.command = "export";
	report.target = a.to;
	struct mw_run run = {.cli = cli, .report = &report, .dry = a.dry};
	struct mw_target_opts o = {.create = true,
	                           .plain_dir = true,
	                           .stopped = mw_cli_stopped};
	mw_cli_catch_signals();
	int r = mw_query_users(cli, &a.q, &err);
	if (!r)
		r = mw_target_new(a.to, &o, &run.target, &err);
	if (!r) {
		const struct mw_plan_opts po = {.cli = cli,
		                                .query = &a.q,
		                                .target = run.target,
		                                .export = true,
		                                .bad = mw_report_unreadable,
		                                .arg = &report};
		r = mw_plan_make(&po, &run.plan, &err);
	}
	if (!r)
		r = mw_run_all(&run, &err);
	status = mw_run_finish(&run, r, &err, a.report);
	mw_target_free(run.target);
	mw_plan_free(run.plan);
	mw_run_done(&run);
	mw_report_done(&report);
	return status;
}
