/*
 * The parts of crypttabrepair: what is there (repair-find.c), whose
 * line is whose (repair-lines.c), which key opens what (repair-prove.c), the new
 * table (repair-table.c), and what binds them (repair.c).
 */
#ifndef QS_OPS_REPAIR_H
#define QS_OPS_REPAIR_H

#include "base/secret.h"
#include "ops/internal.h"
#include "tab/crypttab.h"

#define QS_REPAIR_NONE SIZE_MAX

/* Keys whose names say that they are one device's; more are left to the trial. */
#define QS_REPAIR_NAMED 16

struct qs_repair_key {
	char *path;              /* logical */
	struct qs_secret digest; /* qs_fingerprint_digest() */
	struct qs_secret bytes;  /* of the first of its kind; empty when there are too many keys */
	size_t first;            /* the first key with the same bytes, perhaps itself */
};

struct qs_repair_backup {
	char *name;
	char uuid[QS_LUKS_UUID_L];
};

/* One per outcome, with the same index. */
struct qs_repair_device {
	struct qs_device *dev;
	int version; /* of its header; 0: it cannot be used, the outcome says why */
	char uuid[QS_LUKS_UUID_L], label[QS_LUKS_LABEL_L];
	bool labelled;        /* its subsystem is ours */
	char *twin;           /* node of another device with the same UUID, or NULL */
	char *link, *by_rule; /* by the naming rule; NULL: it has none, and this is why: */
	struct qs_error nameless;
	char *name;                    /* what it is to be called; NULL: it gets no line */
	size_t line, foreign;          /* entries of the table: of ours, and of others, or NONE */
	size_t printed;                /* the key whose fingerprint is in its header, or NONE */
	int slot;                      /* of that fingerprint */
	size_t named[QS_REPAIR_NAMED]; /* keys whose names say that they are its, each once */
	size_t named_count;
	size_t key;         /* the one that opens it, or NONE */
	bool by_command;    /* the key command opens it, and no key file does */
	const char *action; /* what became of its line, for JSON; NULL: it has none of ours */
};

/* One per entry of the table. */
struct qs_repair_line {
	bool ours;
	char *node;    /* what its device leads to now (real); NULL: nothing */
	bool untold;   /* ... or that cannot be told */
	size_t device; /* whose line it is, or NONE */
};

struct qs_repair_table {
	struct qs_crypttab *tab;
	struct qs_repair_line *lines;
	size_t count;
};

struct qs_repair {
	const struct qs_env *env;
	const struct qs_repair_options *options;
	struct qs_outcomes *outcomes;
	struct qs_repair_device *devices;
	struct qs_repair_key *keys; /* those of keys_dir first, each directory in C order */
	size_t key_count, kept;     /* number; bytes of them in memory */
	struct qs_repair_backup *backups;
	size_t backup_count;
	unsigned char *used; /* shared by all processes, one per key: enum qs_repair_used */
	bool incomplete;     /* a device could not be looked at: what is missing may be there */
	json_t *result;
};

/* What is known of a key; keys are tried in this order. */
enum qs_repair_used {
	QS_REPAIR_FREE,
	QS_REPAIR_CLAIMED, /* a name or fingerprint gives it to a device */
	QS_REPAIR_PROVEN,
};

/* All keys: "unusable_keys" and "duplicate_keys" of the result are filled too. */
int qs_repair_find_keys(struct qs_repair *r, struct qs_error *err);

/* All header backups that can be read: hints, no more. */
void qs_repair_find_backups(struct qs_repair *r);

/* All LUKS devices, and those that cannot be read: fills outcomes and devices. After the keys. */
int qs_repair_find_devices(struct qs_repair *r, const struct qs_crypttab *tab,
			   struct qs_error *err);

/* TAB is taken over, on failure too. */
void qs_repair_table_init(const struct qs_repair *r, struct qs_crypttab *tab,
			  struct qs_repair_table *ret);
void qs_repair_table_done(struct qs_repair_table *table); /* also a QS_AUTO releaser */

/*
 * Find out which line belongs to which device, and how each device is to be
 * called. Before the proof, and again on the table that is then changed.
 */
void qs_repair_assign(struct qs_repair *r, struct qs_repair_table *table);

/* Does the device field of entry LINE lead to D, and to no twin of it? */
bool qs_repair_leads_to(const struct qs_repair_table *table, size_t line,
			const struct qs_repair_device *d);

/* Does it name, by their UUID, D and its twin? */
bool qs_repair_names_twins(const struct qs_repair_table *table, size_t line,
			   const struct qs_repair_device *d);

/* Entry I is ours and nobody's, and leads nowhere or to D: its name is free for D. */
bool qs_repair_is_loose(const struct qs_repair_table *table, size_t i,
			const struct qs_repair_device *d);

/* The backup of this name, or NULL. */
const struct qs_repair_backup *qs_repair_backup_of(const struct qs_repair *r, const char *name);

/* Has qs-util to do with the device: by its header, a line of ours or a backup? */
bool qs_repair_is_ours(const struct qs_repair *r, const struct qs_repair_device *d);

/* Is PATH the key file NAME.key of some directory? */
bool qs_repair_key_has_name(const char *path, const char *name);

/* Say which keys the names and fingerprints give to each device. After qs_repair_assign(). */
void qs_repair_claim(struct qs_repair *r, const struct qs_crypttab *tab);

/* Test-open every device that may get a line, in worker processes. */
int qs_repair_prove(struct qs_repair *r, struct qs_error *err);

/* Change TABLE; findings go to outcomes and result. */
void qs_repair_change(struct qs_repair *r, struct qs_repair_table *table);

/* Another thing to tell about a device. */
#define qs_repair_warn(r, d, ...)                                                                  \
	qs_outcome_warn(&(r)->outcomes->items[(d) - (r)->devices], __VA_ARGS__)

#endif
