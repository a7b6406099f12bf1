#include "replay/drill_report.h"

#include "journal/base/clock.h"
#include "journal/base/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	SHOWN = 50, /* findings in a text; HTML and JSON have all that are kept */
	LABEL = 11
};

/* One line of a report: a label and what there is to say. */
struct row {
	const char *label;
	struct mw_buf text;
};

enum {
	ROWS = 16
};

struct sheet {
	struct row row[ROWS];
	size_t n;
};

static struct mw_buf *
row(struct sheet *s, const char *label)
{
	mw_assert(s->n < ROWS);
	s->row[s->n].label = label;
	s->row[s->n].text = (struct mw_buf){0};
	return &s->row[s->n++].text;
}

static void
sheet_done(struct sheet *s)
{
	for (size_t i = 0; i < s->n; i++)
		mw_buf_free(&s->row[i].text);
}

static const char *
s_of(unsigned long long n)
{
	return n == 1 ? "" : "s";
}

static unsigned long long
num(const json_t *o, const char *path)
{
	return (unsigned long long)mw_drill_num(o, path);
}

static void
put_duration(struct mw_buf *b, double seconds)
{
	char text[32];
	if (seconds < 0.1) {
		mw_buf_printf(b, "%.0f ms", seconds * 1000);
		return;
	}
	if (seconds < 10) {
		mw_buf_printf(b, "%.2f s", seconds);
		return;
	}
	mw_duration_human(text, sizeof text, (int64_t)(seconds * 1e6));
	mw_buf_puts(b, text);
}

static void
put_size(struct mw_buf *b, const json_t *o, const char *path)
{
	char text[32];
	mw_size_human(text, sizeof text, num(o, path));
	mw_buf_puts(b, text);
}

/* "2026-11-22 14:34:40 UTC" of an RFC 3339 time. */
static void
put_time(struct mw_buf *b, const json_t *o, const char *path)
{
	const char *t = mw_drill_str(o, path);
	if (strlen(t) < 19)
		mw_buf_puts(b, "not known");
	else
		mw_buf_printf(b, "%.10s %.8s UTC", t, t + 11);
}

static void
scope_rows(const json_t *o, struct sheet *s)
{
	const char *selection = mw_drill_str(o, "scope.selection");
	struct mw_buf *b = row(s, "Source");
	mw_buf_printf(b, "journal %s, read from %s", mw_drill_str(o, "journal.id"),
	              mw_drill_str(o, "journal.directory"));
	if (mw_drill_is(o, "journal.encrypted"))
		mw_buf_puts(b, ", opened with a recovery key");
	b = row(s, "Target");
	mw_buf_printf(b, "%s", mw_drill_str(o, "target_kind"));
	if (strcmp(mw_drill_str(o, "target_kind"), "given") == 0)
		mw_buf_printf(b, ": %s", mw_drill_str(o, "target"));
	else
		mw_buf_puts(b, ", made for this drill and removed after it");
	b = row(s, "Scope");
	if (strcmp(mw_drill_str(o, "scope.kind"), "sample") == 0)
		mw_buf_printf(
		    b,
		    "%llu of %llu copies in %llu mailbox%s: %llu drawn at random "
		    "(seed %s), and %llu because they are the newest",
		    num(o, "scope.drawn"), num(o, "scope.eligible"),
		    num(o, "scope.mailboxes"), num(o, "scope.mailboxes") == 1 ? "" : "es",
		    num(o, "scope.drawn") - num(o, "scope.drawn_as_newest"),
		    mw_drill_str(o, "scope.seed"), num(o, "scope.drawn_as_newest"));
	else
		mw_buf_printf(b, "all %llu copies in %llu mailbox%s",
		              num(o, "scope.drawn"), num(o, "scope.mailboxes"),
		              num(o, "scope.mailboxes") == 1 ? "" : "es");
	mw_buf_printf(b, "; %s", *selection ? "selected by " : "of the whole journal");
	mw_buf_puts(b, selection);
}

static void
result_rows(const json_t *o, struct sheet *s)
{
	unsigned long long canon = num(o, "copies.identical_in_canonical_form");
	struct mw_buf *b = row(s, "Restored");
	mw_buf_printf(b, "%llu of %llu; ", num(o, "copies.restored"),
	              num(o, "copies.expected"));
	mw_buf_printf(b, "SHA-256 identical to capture %llu", num(o, "copies.identical"));
	if (canon)
		mw_buf_printf(b, ", identical but for what such a target rewrites %llu",
		              canon);
	b = row(s, "Different");
	mw_buf_printf(b,
	              "missing %llu, altered %llu, wrong folder %llu, wrong date %llu, "
	              "out of order %llu, surplus %llu",
	              num(o, "copies.missing"), num(o, "copies.altered"),
	              num(o, "copies.wrong_folder"), num(o, "copies.wrong_date"),
	              num(o, "copies.out_of_order"), num(o, "copies.surplus"));
	if (num(o, "copies.left_out")) {
		b = row(s, "Left out");
		mw_buf_printf(
		    b,
		    "%llu that a replay leaves out: refused %llu, bounced %llu, in "
		    "the mail queue %llu, removed by their users %llu",
		    num(o, "copies.left_out"), num(o, "copies.refused"),
		    num(o, "copies.bounced"), num(o, "copies.queued"),
		    num(o, "copies.removed"));
	}
	b = row(s, "Integrity");
	mw_buf_printf(b,
	              "records %llu to %llu in %llu segment%s (%llu signed), chain head "
	              "%.16s…; %llu sequence numbers lost or unexplained; %llu erased, "
	              "%llu segments pruned, as the log says",
	              num(o, "journal.first_seq"), num(o, "journal.last_seq"),
	              num(o, "journal.segments"), s_of(num(o, "journal.segments")),
	              num(o, "journal.signed_segments"), mw_drill_str(o, "journal.chain"),
	              num(o, "journal.lost_sequence_numbers"), num(o, "journal.erased"),
	              num(o, "journal.pruned_segments"));
}

static void
put_limit(struct mw_buf *b, const json_t *o, const char *path)
{
	if (!json_is_number(mw_drill_at(o, path)))
		return;
	mw_buf_puts(b, "; at most ");
	put_duration(b, mw_drill_real(o, path));
	mw_buf_puts(b, " is wanted");
}

static void
measured_rows(const json_t *o, struct sheet *s)
{
	struct mw_buf *b = row(s, "RPO");
	bool known = json_is_number(mw_drill_at(o, "measured.rpo_s"));
	bool bound = mw_drill_is(o, "measured.rpo_is_bound");
	mw_buf_puts(b, !known ? "not measured" : bound ? "at most " : "");
	if (known)
		put_duration(b, mw_drill_real(o, "measured.rpo_s"));
	mw_buf_puts(b, !known ? ": no message that was captured could be read"
	               : bound
	                   ? ": age of the newest message in the log (mailwald was not "
	                     "there to say what it acknowledged last)"
	                   : ": newest message acknowledged by mailwald against the "
	                     "newest read whole from the log");
	if (json_is_number(mw_drill_at(o, "measured.backup_alone_rpo_s"))) {
		mw_buf_puts(b, "; with the last completed backup alone ");
		put_duration(b, mw_drill_real(o, "measured.backup_alone_rpo_s"));
	}
	put_limit(b, o, "measured.rpo_limit_s");
	b = row(s, "RTO");
	put_duration(b, mw_drill_real(o, "measured.rto_s"));
	mw_buf_printf(b,
	              mw_drill_is(o, "measured.rto_is_extrapolation")
	                  ? " extrapolated to %llu copies ("
	                  : " measured on all %llu copies (",
	              num(o, "journal.since_mark_copies"));
	put_size(b, o, "journal.since_mark_bytes");
	if (*mw_drill_str(o, "journal.mark"))
		mw_buf_printf(b, ") since mark %s, from ",
		              mw_drill_str(o, "journal.mark"));
	else
		mw_buf_puts(b, ") in the whole journal, from ");
	put_duration(b, mw_drill_real(o, "measured.plan_s"));
	mw_buf_puts(b, " of planning and ");
	put_duration(b, mw_drill_real(o, "measured.restore_s"));
	mw_buf_printf(b, " for %llu copies (", num(o, "copies.restored"));
	put_size(b, o, "measured.restored_bytes");
	mw_buf_puts(b, ")");
	put_limit(b, o, "measured.rto_limit_s");
}

static void
fill(const json_t *o, bool signed_here, struct sheet *s)
{
	scope_rows(o, s);
	result_rows(o, s);
	measured_rows(o, s);
	struct mw_buf *b = row(s, "Time");
	put_time(b, o, "started");
	mw_buf_puts(b, " to ");
	put_time(b, o, "ended");
	mw_buf_printf(b, " on %s, mailwal %s", mw_drill_str(o, "host"),
	              mw_drill_str(o, "version"));
	b = row(s, "Operator");
	mw_buf_puts(b, mw_drill_str(o, "operator"));
	b = row(s, "Signature");
	mw_buf_puts(b,
	            signed_here
	                ? "Ed25519, by the key of this journal; holds"
	                : "DOES NOT HOLD: not signed by this journal, or altered since");
	b = row(s, "Check");
	mw_buf_printf(b, "mailwal drill verify %s", mw_drill_str(o, "name"));
	b = row(s, "Maps to");
	mw_buf_puts(b, "Regulation (EU) 2024/2690 Annex 4.2.3, 4.2.6; ISO/IEC 27001:2022 "
	               "A.8.13; GDPR Art. 32(1)(c), (d)");
}

static bool
passed(const json_t *o)
{
	return strcmp(mw_drill_str(o, "result"), "passed") == 0;
}

/* ---- text ---- */

/* Folds at blanks, so that a report can be printed. */
static void
fold(struct mw_buf *out, struct mw_str text)
{
	enum {
		WIDTH = 90 - LABEL - 1
	};
	size_t at = 0;
	while (text.n) {
		struct mw_str word = text, after = mw_str("", 0);
		size_t cells = 0;
		(void)mw_str_cut(text, ' ', &word, &after);
		for (size_t i = 0; i < word.n; i++)
			cells += ((unsigned char)word.p[i] & 0xc0) != 0x80;
		if (at && at + 1 + cells > WIDTH) {
			mw_buf_printf(out, "\n%*s", LABEL + 1, "");
			at = 0;
		}
		if (at)
			mw_buf_putc(out, ' ');
		mw_buf_putstr(out, word);
		at += cells + (at > 0);
		text = after;
	}
	mw_buf_putc(out, '\n');
}

static void
text_findings(const json_t *o, struct mw_buf *out)
{
	const json_t *list = mw_drill_at(o, "findings"), *f;
	unsigned long long all = num(o, "findings_total");
	size_t i;
	if (!all)
		mw_buf_printf(out, "%-*s %s\n", LABEL, "Findings", "none");
	json_array_foreach(list, i, f)
	{
		MW_BUF_AUTO b = {0};
		if (i == SHOWN)
			break;
		mw_buf_printf(&b, "%s: ", mw_drill_str(f, "kind"));
		if (*mw_drill_str(f, "id"))
			mw_buf_printf(&b, "%.*s ", MW_ID_SHORT, mw_drill_str(f, "id"));
		if (mw_drill_num(f, "seq"))
			mw_buf_printf(&b, "(record %llu) ", num(f, "seq"));
		if (*mw_drill_str(f, "mailbox"))
			mw_buf_printf(&b, "%s: ", mw_drill_str(f, "mailbox"));
		mw_buf_puts(&b, mw_drill_str(f, "text"));
		MW_BUF_AUTO safe = {0};
		mw_text_safe(mw_buf_str(&b), false, &safe);
		mw_buf_printf(out, "%-*s ", LABEL, i ? "" : "Findings");
		fold(out, mw_buf_str(&safe));
	}
	if (all > SHOWN)
		mw_buf_printf(out, "%*s and %llu more (-o json)\n", LABEL, "",
		              all - SHOWN);
	if (all)
		mw_buf_printf(
		    out, "%-*s %s\n", LABEL, "Corrective",
		    "action ______________  owner ____________  due __________");
}

void
mw_drill_text(const json_t *o, bool signed_here, struct mw_buf *out)
{
	struct sheet s = {.n = 0};
	MW_BUF_AUTO safe = {0};
	mw_text_safe(mw_strz(mw_drill_str(o, "name")), false, &safe);
	mw_buf_printf(out, "RESTORE DRILL %-57.57s RESULT: %s\n", mw_buf_cstr(&safe),
	              passed(o) ? "PASSED" : "FAILED");
	fill(o, signed_here, &s);
	for (size_t i = 0; i < s.n; i++) {
		MW_BUF_AUTO text = {0};
		mw_text_safe(mw_buf_str(&s.row[i].text), false, &text);
		mw_buf_printf(out, "%-*s ", LABEL, s.row[i].label);
		fold(out, mw_buf_str(&text));
		if (strcmp(s.row[i].label, "RTO") == 0)
			text_findings(o, out);
		if (strcmp(s.row[i].label, "Operator") == 0)
			mw_buf_printf(out, "%-*s %s\n", LABEL, "Reviewer",
			              "____________________");
	}
	sheet_done(&s);
}

/* ---- HTML ---- */

static void
escape(struct mw_buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		const char *e = c == '&'                ? "&amp;"
		                : c == '<'              ? "&lt;"
		                : c == '>'              ? "&gt;"
		                : c == '"'              ? "&quot;"
		                : c == '\''             ? "&#39;"
		                : c < 0x20 || c == 0x7f ? "\xef\xbf\xbd"
		                                        : NULL;
		if (e)
			mw_buf_puts(out, e);
		else
			mw_buf_putc(out, (char)c);
	}
}

static void
html_findings(const json_t *o, struct mw_buf *out)
{
	static const char *const columns[] = {"kind", "id", "seq", "mailbox", "text"};
	const json_t *list = mw_drill_at(o, "findings"), *f;
	size_t i;
	if (!json_array_size(list)) {
		mw_buf_puts(out, "<p>None.</p>\n");
		return;
	}
	mw_buf_puts(out, "<table><thead><tr><th>Kind<th>Message<th>Record<th>Mailbox"
	                 "<th>Finding<th>Action<th>Owner<th>Due</thead>\n");
	json_array_foreach(list, i, f)
	{
		mw_buf_puts(out, "<tr>");
		for (size_t k = 0; k < MW_COUNT(columns); k++) {
			mw_buf_puts(out, "<td>");
			if (strcmp(columns[k], "seq") != 0)
				escape(out, mw_drill_str(f, columns[k]));
			else if (mw_drill_num(f, "seq"))
				mw_buf_printf(out, "%llu", num(f, "seq"));
		}
		mw_buf_puts(out, "<td><td><td>\n");
	}
	mw_buf_puts(out, "</table>\n");
	if (num(o, "findings_total") > json_array_size(list))
		mw_buf_printf(out, "<p>%llu in all; the first %zu are listed.</p>\n",
		              num(o, "findings_total"), json_array_size(list));
}

void
mw_drill_html(const json_t *o, bool signed_here, struct mw_buf *out)
{
	struct sheet s = {.n = 0};
	mw_buf_puts(out,
	            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src "
	            "'none'; style-src 'unsafe-inline'\">\n<title>Restore drill ");
	escape(out, mw_drill_str(o, "name"));
	mw_buf_puts(out, "</title>\n<style>\n"
	                 "body{font:15px/1.45 sans-serif;max-width:60em;margin:2em auto;"
	                 "padding:0 1em;color:#111;background:#fff}\n"
	                 "table{border-collapse:collapse;width:100%}\n"
	                 "th,td{border:1px solid #bbb;padding:.35em .6em;text-align:left;"
	                 "vertical-align:top;overflow-wrap:anywhere}\n"
	                 "th[scope=row]{width:8em}\n"
	                 ".passed{color:#060}.failed{color:#900}\n"
	                 "@media print{body{margin:0;max-width:none}}\n"
	                 "</style></head><body>\n<h1>Restore drill ");
	escape(out, mw_drill_str(o, "name"));
	mw_buf_printf(out,
	              "</h1>\n<p class=\"%s\"><strong>Result: %s</strong></p>\n<table>\n",
	              passed(o) ? "passed" : "failed", passed(o) ? "PASSED" : "FAILED");
	fill(o, signed_here, &s);
	for (size_t i = 0; i < s.n; i++) {
		mw_buf_printf(out, "<tr><th scope=\"row\">%s<td>", s.row[i].label);
		escape(out, mw_buf_cstr(&s.row[i].text));
		mw_buf_putc(out, '\n');
	}
	sheet_done(&s);
	mw_buf_puts(out, "</table>\n<h2>Findings</h2>\n");
	html_findings(o, out);
	mw_buf_puts(out, "<h2>Review</h2>\n<table><tr><th scope=\"row\">Reviewer<td>"
	                 "<tr><th scope=\"row\">Date<td>"
	                 "<tr><th scope=\"row\">Remarks<td></table>\n</body></html>\n");
}
