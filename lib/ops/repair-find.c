/*
 * crypttabrepair: the keys, header backups and LUKS devices that are there.
 * Headers are read in worker processes, so that a disk that does not answer
 * costs its deadline and not the whole repair.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"
#include "key/keydir.h"
#include "key/keyfile.h"
#include "luks/backup.h"
#include "luks/fingerprint.h"
#include "luks/make.h"
#include "ops/repair.h"

/* ---- keys ---- */

/*
 * Bytes of keys that are kept, in locked memory that the workers share: to read a
 * key file again takes a seventh of the time of a try. More are read again.
 */
#define KEEP_MAX (128U << 20)

static void add_finding(json_t *list, json_t *finding)
{
	(void)json_array_append_new(list, finding);
}

/* The same bytes as a key before: both names are told. */
static void find_first(struct qs_repair *r, size_t i)
{
	struct qs_repair_key *key = &r->keys[i];

	key->first = i;
	for (size_t k = 0; k < i; k++)
		if (qs_secret_equal(&r->keys[k].digest, &key->digest)) {
			key->first = k;
			add_finding(json_object_get(r->result, "duplicate_keys"),
				    json_pack("[o, o]", qs_utf8_json(r->keys[k].path),
					      qs_utf8_json(key->path)));
			return;
		}
}

static int add_key(struct qs_repair *r, const char *path, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret bytes = {};
	struct qs_repair_key *grown;
	struct qs_error own = {};

	for (size_t i = 0; i < r->key_count; i++)
		if (strcmp(r->keys[i].path, path) == 0)
			return 0;
	if (qs_key_load(r->env, path, &bytes, &own) < 0) {
		add_finding(json_object_get(r->result, "unusable_keys"),
			    json_pack("{s:o, s:o}", "key_file", qs_utf8_json(path), "problem",
				      qs_utf8_json(own.text)));
		return 0;
	}
	grown = realloc(r->keys, (r->key_count + 1) * sizeof(*grown));
	if (!grown)
		return qs_fail(err, QS_E_MEMORY, "no memory for another key");
	r->keys = grown;
	grown[r->key_count] = (struct qs_repair_key){ .path = qs_strdup(path) };
	r->key_count++;
	if (qs_fingerprint_digest(&bytes, &grown[r->key_count - 1].digest, err) < 0)
		return -ENOMEM;
	find_first(r, r->key_count - 1);
	if (grown[r->key_count - 1].first == r->key_count - 1 && r->kept + bytes.size <= KEEP_MAX) {
		r->kept += bytes.size;
		grown[r->key_count - 1].bytes = qs_secret_move(&bytes);
	}
	return 0;
}

/* Not directories, temporaries, and what else begins with a dot. */
static bool may_be_key(const char *directory, const char *name)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", directory, name);
	struct stat st;

	return name[0] != '.' && (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode));
}

static int add_directory(struct qs_repair *r, const char *logical, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(r->env, logical);
	struct dirent **found = NULL;
	int n = scandir(real, &found, NULL, alphasort);
	int result = n < 0 ? qs_fail_errno(err, errno, "cannot read the directory %s", logical) : 0;

	for (int i = 0; i < n; i++) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", logical, found[i]->d_name);

		if (result == 0 && may_be_key(real, found[i]->d_name))
			result = add_key(r, path, err);
		free(found[i]);
	}
	free(found);
	return result;
}

/* Nothing has been made yet, or the boot drive is new: there may be keys elsewhere. */
static bool is_absent_default(const struct qs_repair *r)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(r->env, r->env->config.keys_dir);

	return strcmp(r->env->config.keys_dir, QS_CONF_DIR "/keys") == 0 &&
	       access(real, F_OK) < 0 && errno == ENOENT;
}

/* An unmounted keys directory is an error, unless the keys are said to be somewhere else. */
static int find_usual_keys(struct qs_repair *r, struct qs_error *err)
{
	const char *dir = r->env->config.keys_dir;
	struct qs_error own = {};

	if (is_absent_default(r))
		return 0;
	if (qs_key_look_dir(r->env, dir, &own) == 0)
		return add_directory(r, dir, err);
	if (r->options->keys_dir_count == 0) {
		if (err)
			*err = own;
		return qs_kind_errno(own.kind);
	}
	add_finding(json_object_get(r->result, "unusable_keys"),
		    json_pack("{s:o, s:o}", "key_file", qs_utf8_json(dir), "problem",
			      qs_utf8_json(own.text)));
	return 0;
}

int qs_repair_find_keys(struct qs_repair *r, struct qs_error *err)
{
	int result = find_usual_keys(r, err);

	for (size_t i = 0; result == 0 && i < r->options->keys_dir_count; i++) {
		QS_AUTO(qs_auto_free) char *path = qs_env_absolute(r->options->keys_dirs[i]);
		const char *logical = qs_env_logical(r->env, path);
		size_t length = strlen(logical);

		while (length > 1 && logical[length - 1] == '/')
			path[(size_t)(logical - path) + --length] = '\0';
		result = qs_key_look_dir(r->env, logical, err);
		if (result == 0)
			result = add_directory(r, logical, err);
	}
	return result;
}

/* ---- header backups ---- */

static void add_backup(struct qs_repair *r, const char *file)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	size_t length = strlen(file), suffix = strlen(".header");
	QS_AUTO(qs_auto_free) char *name = NULL;
	struct qs_repair_backup *grown;

	if (file[0] == '.' || length <= suffix || strcmp(file + length - suffix, ".header") != 0)
		return;
	name = qs_printf("%.*s", (int)(length - suffix), file);
	if (qs_backup_peek(r->env, name, &h, NULL) != 1 || h.version == 0)
		return;
	grown = realloc(r->backups, (r->backup_count + 1) * sizeof(*grown));
	if (!grown)
		return;
	r->backups = grown;
	grown[r->backup_count].name = QS_TAKE(name);
	(void)snprintf(grown[r->backup_count].uuid, sizeof(grown->uuid), "%s", h.uuid);
	r->backup_count++;
}

void qs_repair_find_backups(struct qs_repair *r)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(r->env, r->env->config.headers_dir);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(real);
	const struct dirent *e;

	while (d && (e = readdir(d)))
		add_backup(r, e->d_name);
}

/* ---- devices: which are there ---- */

static bool is_listed(const struct qs_device_list *list, const char *node)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i]->node, node) == 0)
			return true;
	return false;
}

/* Takes DEV over. Paths of a multipath map and members of an array are left to their parents. */
static int add_device(struct qs_device_list *list, struct qs_device *dev, struct qs_error *err)
{
	QS_AUTO(qs_auto_device) struct qs_device *owned = dev;
	QS_AUTO(qs_auto_free) char *file = qs_device_loop_file(dev);
	struct qs_device **grown;

	if (dev->member_of || is_listed(list, dev->node) || (file && is_listed(list, file)))
		return 0;
	grown = realloc(list->items, (list->count + 1) * sizeof(struct qs_device *));
	if (!grown)
		return qs_fail(err, QS_E_MEMORY, "no memory for another device");
	list->items = grown;
	list->items[list->count++] = QS_TAKE(owned);
	return 0;
}

/* Takes *DEV over; its outcome's name is that of its node. Other devices' addresses change. */
static struct qs_repair_device *new_device(struct qs_repair *r, struct qs_device **dev)
{
	size_t count = r->outcomes->count;
	struct qs_repair_device *grown = reallocarray(r->devices, count + 1, sizeof(*grown));

	if (!grown)
		abort();
	r->devices = grown;
	(void)qs_outcomes_add(r->outcomes, (*dev)->node);
	grown[count] = (struct qs_repair_device){ .line = QS_REPAIR_NONE,
						  .foreign = QS_REPAIR_NONE,
						  .printed = QS_REPAIR_NONE,
						  .key = QS_REPAIR_NONE };
	grown[count].dev = QS_TAKE(*dev);
	return &grown[count];
}

/* Something that could not even be looked at: it is reported under the name that it has. */
static void add_lost(struct qs_repair *r, const char *word, const struct qs_error *error)
{
	struct qs_device *dev = calloc(1, sizeof(*dev));

	if (!dev)
		abort();
	dev->node = qs_strdup(word);
	(void)new_device(r, &dev);
	r->outcomes->items[r->outcomes->count - 1].error = *error;
	r->incomplete = true;
}

static int add_named(struct qs_repair *r, const char *word, struct qs_device_list *list,
		     struct qs_error *err)
{
	struct qs_device *dev = NULL;
	struct qs_error own = {};

	if (qs_device_find(r->env, word, &dev, &own) == 0)
		return add_device(list, dev, err);
	/* What is absent or no device is told by the line that names it. */
	if (own.kind != QS_E_NO_DEVICE && own.kind != QS_E_WRONG_DEVICE)
		add_lost(r, word, &own);
	return 0;
}

static int add_images(struct qs_repair *r, const struct qs_crypttab *tab,
		      struct qs_device_list *list, struct qs_error *err)
{
	int result = 0;

	for (size_t i = 0; tab && result == 0 && i < qs_crypttab_count(tab); i++) {
		const char *device = qs_crypttab_get(tab, i)->device;

		if (device && device[0] == '/' && strncmp(device, "/dev/", 5) != 0)
			result = add_named(r, device, list, err);
	}
	return result;
}

static int add_links(struct qs_repair *r, const char *directory, struct qs_device_list *list,
		     struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(r->env, directory);
	struct dirent **found = NULL;
	int n = scandir(real, &found, NULL, versionsort);
	int result = 0;

	if (n < 0 && errno != ENOENT)
		result = qs_fail_errno(err, errno, "cannot read the directory %s", directory);
	for (int i = 0; i < n; i++) {
		QS_AUTO(qs_auto_free) char *link = qs_printf("%s/%s", directory, found[i]->d_name);

		if (result == 0 && found[i]->d_name[0] != '.')
			result = add_named(r, link, list, err);
		free(found[i]);
	}
	free(found);
	return result;
}

/* An open mapping of dm-crypt stands for the device below it. */
static bool is_mapping(const struct qs_mapping_list *mappings, const char *node)
{
	for (size_t i = 0; i < mappings->count; i++)
		if (strncmp(node, "/dev/", 5) == 0 && strcmp(mappings->items[i].dm, node + 5) == 0)
			return true;
	return false;
}

static int add_scanned(const struct qs_repair *r, struct qs_device_list *list, struct qs_error *err)
{
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	QS_AUTO(qs_device_list_done) struct qs_device_list all = {};
	int result = qs_mapping_scan(&mappings, err);

	if (result == 0)
		result = qs_device_scan(r->env, true, &all, err);
	for (size_t i = 0; result == 0 && i < all.count; i++)
		if (!is_mapping(&mappings, all.items[i]->node))
			result = add_device(list, QS_TAKE(all.items[i]), err);
	return result;
}

/* Below a root prefix only what has a link there: the tree may be another machine's. */
static int list_devices(struct qs_repair *r, const struct qs_crypttab *tab,
			struct qs_device_list *list, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *last = NULL;
	int result = add_images(r, tab, list, err);

	(void)qs_crypttab_load_last(r->env, &last, NULL);
	if (result == 0)
		result = add_images(r, last, list, err);
	if (result < 0)
		return result;
	if (*r->env->root == '\0')
		return add_scanned(r, list, err);
	result = add_links(r, "/dev/disk/by-id", list, err);
	return result < 0 ? result : add_links(r, "/dev/disk/by-uuid", list, err);
}

/* ---- devices: their headers ---- */

/* More fingerprints are honestly never in one header: it has 32 keyslots. */
#define MAX_PRINTS 32

struct look {
	const struct qs_repair *repair;
	const struct qs_device_list *list;
};

/* The first keyslot whose fingerprint is that of a key at hand. */
static int find_printed(const struct qs_repair *r, const struct qs_luks_header *h, json_t *result,
			struct qs_error *err)
{
	struct qs_fingerprint prints[MAX_PRINTS];
	size_t n = qs_fingerprint_read(h->json, prints, MAX_PRINTS);

	for (size_t k = 0; n > 0 && k < r->key_count; k++) {
		unsigned char sum[QS_FINGERPRINT_SIZE];

		if (r->keys[k].first != k)
			continue;
		if (qs_fingerprint_make(&r->keys[k].digest, h->uuid, sum, err) < 0)
			return -EIO;
		for (size_t i = 0; i < n; i++) {
			if (memcmp(prints[i].sum, sum, sizeof(sum)) != 0)
				continue;
			(void)json_object_set_new(result, "printed", json_integer((json_int_t)k));
			(void)json_object_set_new(result, "slot", json_integer(prints[i].slot));
			return 0;
		}
	}
	return 0;
}

/* Everything that is asked of a header, so that it is read once; keys by their numbers. */
static int look(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		struct qs_error *err)
{
	const struct look *l = cookie;
	const char *node = l->list->items[i]->node;
	QS_AUTO(qs_auto_close) int fd = open(node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_free) char *damage = NULL;
	int r;

	qs_worker_step(worker, "header");
	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", node);
	r = qs_luks_header_read(fd, &h, err);
	if (r < 0)
		return r;
	if (h.version == 0 && qs_luks_header_is_trace(&h)) {
		damage = qs_luks_header_damage(&h, fd, node);
		return qs_fail(err, QS_E_DAMAGED, "%s", damage ? damage : "header damaged");
	}
	*ret = json_pack("{s:i, s:s, s:s, s:b}", "version", h.version, "header", h.uuid, "label",
			 h.label, "labelled", strcmp(h.subsystem, QS_SUBSYSTEM) == 0);
	return find_printed(l->repair, &h, *ret, err);
}

static void take_text(char *ret, size_t size, const json_t *header, const char *key)
{
	const char *text = json_string_value(json_object_get(header, key));

	(void)snprintf(ret, size, "%s", text ? text : "");
}

/* The device moves from LIST into the repair when it is LUKS, or cannot be read. */
static void adopt(struct qs_repair *r, struct qs_device **dev, const struct qs_outcome *looked)
{
	int version = (int)json_integer_value(json_object_get(looked->details, "version"));
	struct qs_repair_device *d;
	struct qs_outcome *o;

	if (version == 0 && looked->error.kind == QS_E_NONE)
		return;
	d = new_device(r, dev);
	o = &r->outcomes->items[r->outcomes->count - 1];
	o->error = looked->error;
	qs_outcome_set_device(o, d->dev);
	d->version = version;
	if (version == 0) {
		r->incomplete = true;
		return;
	}
	take_text(d->uuid, sizeof(d->uuid), looked->details, "header");
	take_text(d->label, sizeof(d->label), looked->details, "label");
	d->labelled = json_is_true(json_object_get(looked->details, "labelled"));
	if (json_object_get(looked->details, "printed")) {
		d->printed =
			(size_t)json_integer_value(json_object_get(looked->details, "printed"));
		d->slot = (int)json_integer_value(json_object_get(looked->details, "slot"));
	}
	qs_outcome_set(&o->uuid, d->uuid);
}

static void find_twins(struct qs_repair *r)
{
	for (size_t i = 0; i < r->outcomes->count; i++)
		for (size_t k = 0; k < r->outcomes->count && !r->devices[i].twin; k++)
			if (k != i && r->devices[i].uuid[0] &&
			    strcmp(r->devices[i].uuid, r->devices[k].uuid) == 0)
				r->devices[i].twin = qs_strdup(r->devices[k].dev->node);
}

int qs_repair_find_devices(struct qs_repair *r, const struct qs_crypttab *tab, struct qs_error *err)
{
	QS_AUTO(qs_device_list_done) struct qs_device_list list = {};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes looked = {};
	struct look l = { r, &list };
	int result = list_devices(r, tab, &list, err);

	if (result == 0)
		result = qs_outcomes_init(&looked, NULL, 0, err);
	if (result < 0)
		return result;
	for (size_t i = 0; i < list.count; i++)
		(void)qs_outcomes_add(&looked, list.items[i]->node);
	result = qs_outcomes_run(r->env, &looked, NULL, look, &l, err);
	if (result < 0)
		return result;
	for (size_t i = 0; i < list.count; i++)
		adopt(r, &list.items[i], &looked.items[i]);
	find_twins(r);
	return 0;
}
