/* listen.h - listening sockets: from systemd, or made here.
 *
 * A unix socket that nobody listens on any more is replaced; one that somebody does is
 * his.
 */
#ifndef MW_MILTER_LISTEN_H
#define MW_MILTER_LISTEN_H

#include "conf/conf.h"

#include <sys/types.h>

enum {
	MW_LISTEN_MAX = 32
};

struct mw_listener {
	int fd;
	bool inet;    /* TCP: needs QUICKACK */
	char *unlink; /* path to remove at the end; NULL: not ours */
	dev_t dev;    /* what that path was when it was made, or handed over */
	ino_t ino;
	char name[128]; /* for the log */
};

struct mw_listeners {
	struct mw_listener v[MW_LISTEN_MAX];
	size_t n;
};

struct mw_place {
	const char *path; /* unix, borrowed from the spec; NULL: inet */
	char host[256], port[32];
	int family;
};

/* unix:PATH, local:PATH, /PATH; inet:HOST:PORT, inet:PORT@HOST, inet6:… MW_ECONF. */
int mw_place_parse(const char *spec, struct mw_place *ret, struct mw_err *err) MW_CHECK;
/* One more listening socket, as mw_listen_open makes them. The caller closes it. */
int mw_listen_at(const struct mw_conf *conf, const char *spec, struct mw_listener *ret,
                 struct mw_err *err) MW_CHECK;
/* Only syntax: MW_ECONF. */
int mw_listen_check(const struct mw_conf *conf, struct mw_err *err) MW_CHECK;
/* Sockets passed by systemd where there are any, else those of milter_listen. They are
 * non-blocking and close-on-exec. MW_ECONF, MW_EPERM, MW_EIO. */
int mw_listen_open(const struct mw_conf *conf, struct mw_listeners *ret,
                   struct mw_err *err) MW_CHECK;
/* Sockets that another mailwald hands over (taken over by this): mw_listen_open and
 * mw_listen_at use them where their addresses fit, and make none anew. _inherit gives
 * them the group and mode of conf, and makes all others that conf wants: what cannot be
 * had is told while the other mailwald still runs, whose sockets stay as they are then
 * (MW_ECONF, MW_EPERM, MW_EIO). Then _done closes, and removes, what nobody wanted; _undo
 * leaves what was handed over where it is. At the start, by the only thread. */
int mw_listen_inherit(const struct mw_listeners *l, const struct mw_conf *conf,
                      struct mw_err *err) MW_CHECK;
void mw_listen_inherit_undo(void);
void mw_listen_inherit_done(void);
/* Will all these sockets be there when we are gone, held by systemd? */
bool mw_listen_survives(const struct mw_listeners *l);
/* Are the descriptors that are left needed for more than another connection? The
 * journal's segments, its index and messages under way have the last 64 (of fewer than
 * 256 a quarter) for themselves: sessions that took them all could not be served. fd: any
 * descriptor. Any thread; cheap. */
bool mw_listen_crowded(int fd);
/* Is fd, which a session in progress has just opened, among the last 32 (half) of them?
 * Many may have been let in while none had all that it needs. */
bool mw_listen_too_far(int fd);
/* Somebody else has this one too: its path stays when we close it. */
void mw_listen_leave(struct mw_listener *l);
/* Notes what the path to remove is now. */
void mw_listen_mark(struct mw_listener *l);
/* Is something else there now? */
bool mw_listen_lost(const struct mw_listener *l);
/* Removes the path, unless somebody else has put another there, and forgets it. */
void mw_listen_remove(struct mw_listener *l);
/* Stops listening; removes our unix sockets. */
void mw_listen_close(struct mw_listeners *l);

#endif
