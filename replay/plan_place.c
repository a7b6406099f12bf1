/* plan_place.c - boxes of a plan that are one directory or file by another name: through
 * links among the directories above, as those of a domain's aliases. */
#include "replay/plan_place.h"

#include "journal/base/util.h"
#include "replay/target_files.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Is each link on the way root's or our own? Who laid another may turn it elsewhere
 * before anything is put, and would have what is others'. As root a Maildir's own name is
 * a link only where it stays one (mw_mdir_no_links): another would take the mail of its
 * other names with it. */
static bool
links_stay(const char *path)
{
	char part[PATH_MAX];
	struct stat st;
	int n = snprintf(part, sizeof part, "%s", path);
	while (n > 1 &&
	       part[n - 1] == '/') /* a link's own name, and not what it leads to */
		part[--n] = '\0';
	for (char *slash = strchr(part + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash)
			*slash = '\0';
		if (lstat(part, &st) < 0)
			return true; /* from here on it is to be made */
		bool link = S_ISLNK(st.st_mode);
		if (link && st.st_uid != 0 && st.st_uid != geteuid())
			return !slash && geteuid() == 0 && mw_files_link_stays(part);
		if (!slash)
			return !link || geteuid() != 0 || stat(part, &st) < 0 ||
			       !S_ISDIR(st.st_mode) || mw_files_link_stays(part);
		*slash = '/';
	}
}

/* The place by what is there of its path: device and inode, and what is to be made below
 * it. False: nothing is. */
static bool
look(const char *path, struct mw_plan_place *ret)
{
	char part[PATH_MAX];
	struct stat st;
	size_t n = strlen(path);
	if (path[0] != '/' || n >= sizeof part || !links_stay(path))
		return false;
	memcpy(part, path, n + 1);
	while (stat(part, &st) < 0) {
		char *slash = strrchr(part, '/');
		if ((errno != ENOENT && errno != ENOTDIR) || !slash || slash == part)
			return false;
		*slash = '\0';
	}
	*ret = (struct mw_plan_place){st.st_dev, st.st_ino, path + strlen(part), 0};
	return true;
}

static size_t
hash(const struct mw_plan_place *p)
{
	uint64_t h = (uint64_t)p->dev * UINT64_C(0x9e3779b97f4a7c15) ^ p->ino;
	for (const char *z = p->rest; *z; z++)
		h = (h ^ (unsigned char)*z) * UINT64_C(1099511628211);
	return (size_t)(h ^ h >> 29);
}

static bool
same(const struct mw_plan_place *a, const struct mw_plan_place *b)
{
	return a->dev == b->dev && a->ino == b->ino && strcmp(a->rest, b->rest) == 0;
}

static size_t
find(const struct mw_plan_places *p, const struct mw_plan_place *at)
{
	size_t i = hash(at) & (p->n_slot - 1);
	while (p->slot[i] && !same(&p->v[p->slot[i] - 1], at))
		i = (i + 1) & (p->n_slot - 1);
	return i;
}

static int
make_room(struct mw_plan_places *p)
{
	if (p->n * 2 < p->n_slot)
		return 0;
	size_t n = p->n_slot ? p->n_slot * 2 : 256;
	void *v = reallocarray(p->v, n, sizeof *p->v);
	if (!v)
		return MW_ENOMEM;
	p->v = v;
	size_t *slot = calloc(n, sizeof *slot);
	if (!slot)
		return MW_ENOMEM;
	free(p->slot);
	p->slot = slot;
	p->n_slot = n;
	for (size_t i = 0; i < p->n; i++)
		p->slot[find(p, &p->v[i])] = i + 1;
	return 0;
}

int
mw_plan_place(struct mw_plan_places *p, const char *path, size_t box, size_t *ret)
{
	struct mw_plan_place at;
	*ret = box;
	if (!look(path, &at))
		return 0;
	at.box = box;
	if (make_room(p))
		return MW_ENOMEM;
	size_t i = find(p, &at);
	if (p->slot[i]) {
		*ret = p->v[p->slot[i] - 1].box;
		return 0;
	}
	p->v[p->n++] = at;
	p->slot[i] = p->n;
	return 0;
}

void
mw_plan_drop_names(struct mw_plan *p)
{
	size_t n = 0;
	for (size_t i = 0; i < p->n_box; i++)
		if (!p->box[i].same)
			p->box[n++] = p->box[i];
	p->n_box = n;
}

bool
mw_plan_one_place(const char *a, const char *b)
{
	struct mw_plan_place x, y;
	return look(a, &x) && look(b, &y) && same(&x, &y);
}

uint64_t
mw_plan_place_hash(const char *path)
{
	struct mw_plan_place at;
	return look(path, &at) ? (uint64_t)hash(&at) | 1 : 0;
}

void
mw_plan_places_done(struct mw_plan_places *p)
{
	free(p->v);
	free(p->slot);
	*p = (struct mw_plan_places){.n = 0};
}
