#include "keystore/server.h"

#include "base/cleanup.h"
#include "base/utf8.h"
#include "key/keyfile.h"

int qs_server_credential(const struct qs_env *env, const char *path, const char *setting,
			 struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *what = qs_printf("the file %s", path);
	int r = *path ? qs_key_load_as(env, what, path, ret, err)
		      : qs_fail(err, QS_E_CONFIG, "%s is not set in qs-util.conf", setting);

	if (r < 0)
		qs_error_prefix(err, "%s", setting);
	return r;
}

json_t *qs_server_describe(json_t *found, int r, const struct qs_error *why)
{
	json_t *json = found ? found : json_object();

	(void)json_object_set_new(json, "reachable", json_boolean(r == 0));
	/* What is wrong with our own files is nothing that a server did. */
	if (r < 0 && why->kind == QS_E_KEY_FILE)
		(void)json_object_set_new(json, "asked", json_false());
	if (r < 0)
		(void)json_object_set_new(json, "problem", qs_utf8_json(why->text));
	return json;
}

void qs_server_add_end(json_t *json, const char *field, const char *what, time_t when)
{
	json_t *list = json_object_get(json, "expires");
	char text[32];
	struct tm utc;

	if (!when || !gmtime_r(&when, &utc) ||
	    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
		return;
	if (!list) {
		list = json_array();
		(void)json_object_set_new(json, "expires", list);
	}
	(void)json_object_set_new(json, field, json_string(text));
	(void)json_array_append_new(list, json_pack("{s:s,s:s}", "what", what, "time", text));
}
