/*
 * keybackup: everything that a lost boot drive would take along, in one sealed file.
 *
 * step                        what a crash after it leaves    a second run
 * 1 look at all files         nothing                         does it again
 * 2 read, seal into memory    nothing                         does it again
 * 3 write FILE's temporary    .FILE.qs-tmp, unreadable        replaces it
 * 4 rename, sync, read back   FILE, whole                     refuses without --force
 *
 * Files are read one after the other and not under one lock. What changes while
 * it is read is noticed by its sum (not keys: they are never changed in place).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"
#include "keystore/keystore.h"
#include "ops/bundle-collect.h"
#include "ops/bundle.h"
#include "ops/internal.h"

static size_t count_kind(const struct qs_collected *c, enum qs_member_kind kind)
{
	size_t n = 0;

	for (size_t i = 0; i < c->count; i++)
		n += c->files[i].kind == kind;
	return n;
}

static int check_anything(const struct qs_env *env, const struct qs_collected *c,
			  struct qs_error *err)
{
	if (count_kind(c, QS_MEMBER_KEY) + count_kind(c, QS_MEMBER_STORE) > 0)
		return 0;
	return qs_fail(err, QS_E_KEY_FILE, "there is no key in %s: nothing to back up",
		       env->config.keys_dir);
}

/* Keys have no sum, so they need not be read for it. */
static int add_sums(struct qs_collected *c, struct qs_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->count; i++) {
		struct qs_collected_file *f = &c->files[i];
		QS_AUTO(qs_secret_done) struct qs_secret content = {};

		if (f->kind == QS_MEMBER_KEY || f->kind == QS_MEMBER_STORE)
			continue;
		r = qs_collected_read(f, &content, err);
		f->size = content.size;
		if (r == 0)
			qs_sum(content.data, content.size, f->sum);
	}
	return r;
}

static int make_manifest(const struct qs_collected *c, char **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *now = qs_json_time(time(NULL));
	struct utsname host = {};
	QS_AUTO(qs_auto_json) json_t *manifest = NULL;

	(void)uname(&host);
	manifest = qs_manifest_new(host.nodename, json_string_value(now));
	for (size_t i = 0; i < c->device_count; i++)
		qs_manifest_add_device(manifest, &c->devices[i]);
	for (size_t i = 0; i < c->count; i++)
		qs_manifest_add_file(manifest, c->files[i].member, c->files[i].size,
				     c->files[i].sum);
	*ret = json_dumps(manifest, JSON_INDENT(1));
	return *ret ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for the manifest");
}

/* ---- sealing ---- */

static int seal_piece(void *cookie, const void *data, size_t size, struct qs_error *err)
{
	return qs_seal_write(cookie, data, size, err);
}

static int put_file(struct qs_member_writer *w, const char *name, const void *data, size_t size,
		    unsigned mode, time_t mtime, struct qs_error *err)
{
	struct qs_tar_header h = { .size = size, .mode = mode, .mtime = mtime };
	int r;

	if (strlen(name) >= sizeof(h.name))
		return qs_fail(err, QS_E_FAILED, "the name %s is too long for a bundle", name);
	(void)snprintf(h.name, sizeof(h.name), "%s", name);
	r = qs_member_begin(w, &h, err);
	return r < 0 ? r : qs_member_write(w, data, size, err);
}

/* So that tar makes them private, and not as the umask has it. */
static int put_directories(struct qs_member_writer *w, struct qs_error *err)
{
	static const char *const names[] = { "cryptconf", "cryptconf/keys", "cryptconf/headers" };
	int r = 0;

	for (size_t i = 0; r == 0 && i < QS_ARRAY_SIZE(names); i++) {
		struct qs_tar_header h = { .directory = true, .mode = 0700 };

		(void)snprintf(h.name, sizeof(h.name), "%s", names[i]);
		r = qs_member_begin(w, &h, err);
	}
	return r;
}

static int put_collected(struct qs_member_writer *w, const struct qs_collected_file *f,
			 struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret content = {};
	char sum[QS_SUM_L] = "";
	int r = qs_collected_read(f, &content, err);

	if (r < 0)
		return r;
	if (*f->sum)
		qs_sum(content.data, content.size, sum);
	if (strcmp(sum, f->sum) != 0)
		return qs_fail(err, QS_E_TEMPORARY,
			       "%s was changed while it was being read; run the command again",
			       f->real);
	return put_file(w, f->member, content.data, content.size,
			f->kind == QS_MEMBER_KEY ? 0400 : 0600, f->mtime, err);
}

static int put_all(struct qs_member_writer *w, const struct qs_collected *c, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *manifest = NULL;
	int r = make_manifest(c, &manifest, err);

	if (r == 0)
		r = put_file(w, QS_MEMBER_MANIFEST_NAME, manifest, strlen(manifest), 0600,
			     time(NULL), err);
	if (r == 0)
		r = put_directories(w, err);
	for (size_t i = 0; r == 0 && i < c->count; i++)
		r = put_collected(w, &c->files[i], err);
	return r == 0 ? qs_member_end(w, err) : r;
}

static bool has_keystore(const struct qs_collected *c)
{
	for (size_t i = 0; i < c->count; i++)
		if (strcmp(c->files[i].member, QS_MEMBER_KEYSTORE "keystore.json") == 0)
			return true;
	return false;
}

static json_t *names(char *const *list, size_t count)
{
	json_t *found = json_array();

	for (size_t i = 0; i < count; i++)
		(void)json_array_append_new(found, qs_utf8_json(list[i]));
	return found;
}

static json_t *describe(const struct qs_keybackup_options *options, const struct qs_collected *c,
			size_t size)
{
	json_t *devices = json_array();

	for (size_t i = 0; i < c->device_count; i++)
		(void)json_array_append_new(devices, qs_utf8_json(c->devices[i].name));
	return json_pack("{s:o?,s:I,s:I,s:I,s:o,s:o,s:b,s:o}", "file",
			 qs_utf8_json(options->out.file), "size", (json_int_t)size, "keys",
			 (json_int_t)count_kind(c, QS_MEMBER_KEY), "headers",
			 (json_int_t)count_kind(c, QS_MEMBER_HEADER), "devices", devices, "missing",
			 names(c->missing, c->missing_count), "keystore", has_keystore(c),
			 "by_keystore", names(c->by_keystore, c->by_keystore_count));
}

int qs_keybackup(const struct qs_env *env, const struct qs_keybackup_options *options, json_t **ret,
		 struct qs_error *err)
{
	QS_AUTO(qs_collected_done) struct qs_collected c = {};
	QS_AUTO(qs_auto_seal) struct qs_seal *seal = NULL;
	struct qs_member_writer w = { .sink = seal_piece };
	struct qs_keystore ks;
	const void *data = NULL;
	size_t size = 0;
	int r;

	qs_secret_lock_all();
	r = qs_output_file_check(env, &options->out, err);
	/* One that is not usable shall not take the place of one in an older bundle. */
	if (r == 0)
		r = qs_keystore_load(env, &ks, err);
	if (r == 0)
		r = qs_collect(env, !options->no_headers, &c, err);
	if (r == 0)
		r = check_anything(env, &c, err);
	if (r == 0)
		r = add_sums(&c, err);
	if (r == 0)
		r = qs_seal_begin(&options->to, &seal, err);
	w.cookie = seal;
	if (r == 0)
		r = put_all(&w, &c, err);
	if (r == 0)
		r = qs_seal_end(seal, &data, &size, err);
	if (r == 0)
		r = qs_output_file_write(env, &options->out, data, size, err);
	if (r == 0)
		*ret = describe(options, &c, size);
	return r;
}
