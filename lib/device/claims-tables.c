#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/internal.h"
#include "tab/crypttab.h"
#include "tab/fstab.h"

/* What the device field of a table means now, and its text for what it may mean later. */
static bool identify_spec(const struct qs_env *env, const char *spec, struct qs_claim *ret)
{
	struct stat st;

	ret->literal = qs_spec_path(spec);
	if (!ret->literal)
		return false;
	if (qs_spec_stat(env, ret->literal, &st, NULL) < 0)
		return true;
	if (S_ISBLK(st.st_mode)) {
		ret->devno = st.st_rdev;
	} else if (S_ISREG(st.st_mode)) {
		ret->fs = st.st_dev;
		ret->ino = st.st_ino;
	}
	return true;
}

static int claim_crypttab(struct qs_snapshot *shot, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(shot->env, &tab, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *entry = qs_crypttab_get(tab, i);
		struct qs_claim claim = { .kind = QS_USE_CRYPTTAB };
		QS_AUTO(qs_auto_free) char *name = qs_strdup(entry->name);

		claim.name = name;
		if (entry->device && identify_spec(shot->env, entry->device, &claim))
			qs_claim_add(shot, &claim, "line %u of " QS_CRYPTTAB " (%s)", entry->line,
				     name);
		free(claim.literal);
	}
	return 0;
}

static int take_fstab(const struct qs_fstab_entry *entry, void *cookie)
{
	struct qs_snapshot *shot = cookie;
	struct qs_claim claim = { .kind = QS_USE_FSTAB };

	if (identify_spec(shot->env, entry->source, &claim))
		qs_claim_add(shot, &claim, "line %u of " QS_FSTAB, entry->line);
	free(claim.literal);
	return 0;
}

int qs_claim_tables(struct qs_snapshot *shot, struct qs_error *err)
{
	int r = claim_crypttab(shot, err);

	if (r < 0)
		return r;
	return qs_fstab_each(shot->env, take_fstab, shot, err);
}
