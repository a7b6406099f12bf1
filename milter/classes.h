/* classes.h - which mail is journaled, and what is told when that fails: the `capture`
 * sections of the configuration, compiled.
 *
 * Sections are asked in the order of the file, for each recipient (for each mailbox of an
 * expanded one) on its own; the first that fits decides, and what fits none is journaled.
 * A mail passes without a record only if all its accepted recipients are excluded. Else
 * it is journaled whole, and the excluded recipients are marked in the record
 * (MW_RCPT_EXCLUDED), so that a replay leaves their copies out. A recipient with several
 * mailboxes is excluded only if all of them are.
 *
 * The names of the sections that decided to journal it stay with the record, as its
 * classes; so do the header: and spam: words of `retain` sections that it fits, since
 * retention reads no mail.
 *
 * Life: classes live with the settings they were made of; a scan with one message.
 * Threads: classes are immutable; a scan belongs to one thread.
 */
#ifndef MW_MILTER_CLASSES_H
#define MW_MILTER_CLASSES_H

#include "conf/conf.h"
#include "journal/record/meta.h"

struct mw_classes;

enum {
	MW_CLASSES_MOST = 255,     /* capture sections */
	MW_CLASS_HEADERS = 64,     /* most header: words of all sections together */
	MW_CLASS_FIELD = 8 * 1024, /* of a header field, as much is looked at */
	MW_CLASS_HEADER_MAX = 1024 * 1024 /* of a header */
};

/* conf is borrowed, and must stay. *ret is NULL where nothing is asked of mail: there are
 * no capture sections, and no header: and spam: words of retain sections. MW_ECONF,
 * MW_ENOMEM. */
int mw_classes_new(const struct mw_conf *conf, struct mw_classes **ret,
                   struct mw_err *err) MW_CHECK;
void mw_classes_free(struct mw_classes *c); /* NULL ok */
/* Can a mail that cannot be journaled pass in spite of on_failure = tempfail? Then that
 * is not known before its end. */
bool mw_classes_may_pass(const struct mw_classes *c); /* NULL: no */
/* What is to be told of a mail whose class cannot be found out: the strictest that it may
 * have. c NULL: global. Both are enum mw_on_failure. */
int mw_classes_strictest(const struct mw_classes *c, int global);
const char *mw_classes_name(const struct mw_classes *c, size_t section);

/* What header: and spam: words ask, found out as the content streams by. */
struct mw_scan {
	const struct mw_classes *classes; /* NULL: nothing is asked */
	struct mw_buf field;              /* in progress */
	uint64_t hits;                    /* bit per header word */
	uint64_t seen;                    /* bytes */
	bool spam, bol, over;
	bool cut; /* the header was too long to look at all of it */
};

void mw_scan_begin(struct mw_scan *s, const struct mw_classes *c); /* NULL ok */
/* Content from its first byte on, cut anywhere. */
void mw_scan_put(struct mw_scan *s, const void *p, size_t n);
void mw_scan_end(struct mw_scan *s); /* before the decision, if there was no body */
void mw_scan_free(struct mw_scan *s);

struct mw_class {
	bool journal;
	int on_failure; /* enum mw_on_failure: the strictest of the recipients' */
	size_t section; /* !journal: that excluded the first recipient */
	/* Sections that decided to journal it, a bit each; bit MW_CLASSES_MOST: for some
	 * recipient none did. */
	uint64_t by[(MW_CLASSES_MOST + 1) / 64];
};

/* Direction and MW_RCPT_LOCAL must be known. Marks m's excluded recipients. c NULL: all
 * is journaled. size: bytes of content. */
void mw_classes_decide(const struct mw_classes *c, const struct mw_conf *conf,
                       const struct mw_scan *scan, uint64_t size, struct mw_mail *m,
                       struct mw_class *ret);
/* Sets m's classes and facts; the arrays are in the arena, their words the
 * configuration's. After mw_scan_end and mw_classes_decide; c may be NULL. 0, MW_ENOMEM.
 */
int mw_classes_note(const struct mw_classes *c, const struct mw_scan *scan,
                    const struct mw_class *k, struct mw_arena *a,
                    struct mw_mail *m) MW_CHECK;

#endif
