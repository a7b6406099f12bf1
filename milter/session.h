/* session.h - one connection of an MTA as a plain state machine, without a milter type.
 *
 * The front ends (engine.h, mfi.h), the unit tests and the fuzzer drive it:
 * mw_session_new → connect, helo → (mail → rcpt* → data → header* → eoh → body* →
 * eom | abort)* → mw_session_free; macros come before the stage that they belong to.
 *
 * Content goes to the store as it comes; what is stored is (P3)
 *
 *	name ":" value CRLF   for each header, LF inside a value written as CRLF
 *	CRLF                  at the end of the headers
 *	body chunks           unchanged
 *
 * A proxy (dialog.h) has the message as it is on the wire: after mw_session_front it
 * gives mw_session_content in place of header, eoh and body, and that is stored
 * unchanged.
 *
 * Threads: one session is used by one thread at a time; between two calls the thread may
 * change. Between mw_session_eom (true) and its callback nobody touches the session.
 * Memory: one arena per message, bounded by recipient_limit. Content is bounded by the
 * store, which spills. Nothing here blocks but a file-based alias table.
 *
 * A function that is called out of sequence returns MW_EPROTO and changes nothing; the
 * front end then ends the connection.
 */
#ifndef MW_MILTER_SESSION_H
#define MW_MILTER_SESSION_H

#include "milter/policy.h"

struct mw_session;

/* The macros asked for at each stage, by milter stage number (connect 0, helo 1, mail 2,
 * rcpt 3, data 4, end of message 5, end of headers 6). */
extern const char *const mw_session_symbols[7];

struct mw_session *mw_session_new(struct mw_capture *cap); /* NULL: out of memory */
/* No end of message may be pending. NULL ok. */
void mw_session_free(struct mw_session *s);
/* Whether header values come with their exact leading blanks; false: only in
 * on_failure = accept is mail taken at all, and flagged (MW_MAIL_INEXACT). */
void mw_session_exact(struct mw_session *s, bool exact);
/* The record says that it came this way ("smtp", "lmtp"; a literal), and content comes by
 * mw_session_content alone. */
void mw_session_front(struct mw_session *s, const char *front);
/* Forgets connection and message: another SMTP client follows (QUIT_NC). */
void mw_session_reset(struct mw_session *s);

/* family: '4', '6', 'L' (unix), 'U' (unknown); addr and name may be empty. */
void mw_session_connect(struct mw_session *s, struct mw_str name, char family,
                        unsigned port, struct mw_str addr);
void mw_session_helo(struct mw_session *s, struct mw_str helo);
/* Macros for the command `stage` follow ('C', 'H', 'M', 'R', 'T', 'N', 'E', …). */
void mw_session_macros(struct mw_session *s, char stage);
/* One of them; name with or without braces. Unknown ones are ignored. */
void mw_session_macro(struct mw_session *s, char stage, struct mw_str name,
                      struct mw_str value);
/* argv[0] is the address, with or without brackets; then ESMTP arguments. *ret says
 * what to answer; can_refuse: it reaches the client, otherwise it is given at the end. */
int mw_session_mail(struct mw_session *s, const struct mw_str *argv, size_t argc,
                    bool can_refuse, struct mw_answer *ret) MW_CHECK;
/* can_refuse: likewise. */
int mw_session_rcpt(struct mw_session *s, const struct mw_str *argv, size_t argc,
                    bool can_refuse, struct mw_answer *ret) MW_CHECK;
/* recipient_limit is reached: the next recipient will be too many. */
bool mw_session_full(const struct mw_session *s);
int mw_session_data(struct mw_session *s) MW_CHECK;
int mw_session_header(struct mw_session *s, struct mw_str name,
                      struct mw_str value) MW_CHECK;
int mw_session_eoh(struct mw_session *s) MW_CHECK;
int mw_session_body(struct mw_session *s, const void *p, size_t n) MW_CHECK;
/* Header and body at once, cut anywhere, as they are; once at least, n may be 0. */
int mw_session_content(struct mw_session *s, const void *p, size_t n) MW_CHECK;
/* 1: pending; done(arg) is called exactly once, from any thread, then the owner calls
 * mw_session_finish. 0: *ret is the answer at once, nothing is pending. */
int mw_session_eom(struct mw_session *s, void (*done)(void *arg), void *arg,
                   struct mw_answer *ret) MW_CHECK;
/* While an end of message is pending: has it waited longer for the disk than
 * commit_timeout? Then it is over, done() will not be called, and mw_session_finish is
 * next. The record is not promised absent. Ask now and then; false: go on waiting. */
bool mw_session_overdue(struct mw_session *s);
/* Between done and mw_session_finish: the record's ID and number; false: there is none.
 */
bool mw_session_record(const struct mw_session *s, uint8_t ret_id[MW_ID_LEN],
                       uint64_t *ret_seq);
/* Logs, counts, forgets the message; *ret is the answer. */
void mw_session_finish(struct mw_session *s, struct mw_answer *ret);
/* After that, by a proxy: the next server has taken the message, for all. Until this is
 * said, and from the next MAIL or abort on if it is not, one that passed because replay
 * had told of it (coming.h) is still expected. */
void mw_session_delivered(struct mw_session *s);
/* Drops the message in flight, if any; harmless at any time but between eom and done. */
void mw_session_abort(struct mw_session *s);
/* An SMTP command that the MTA does not know; ignored. */
void mw_session_unknown(struct mw_session *s, struct mw_str line);
/* True from MAIL to the answer. */
bool mw_session_in_message(const struct mw_session *s);
/* True from the first content byte to the answer: worth waiting for at shutdown. */
bool mw_session_in_content(const struct mw_session *s);

#endif
