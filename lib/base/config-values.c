/*
 * The values in force, as JSON: for `qs-util config`, which scripts and
 * systemd's generator ask instead of parsing the file themselves.
 */
#include "base/config-keys.h"

static json_t *names(char *const *list)
{
	json_t *array = json_array();

	for (size_t i = 0; list && list[i]; i++)
		(void)json_array_append_new(array, json_string(list[i]));
	return array;
}

static json_t *value_of(const struct qs_config *config, const struct qs_config_row *row)
{
	const char *at = (const char *)config + row->offset;

	switch (row->type) {
	case QS_CONFIG_NAMES:
		return names(*(char **const *)at);
	case QS_CONFIG_NUMBER:
	case QS_CONFIG_SECONDS:
		return json_integer(*(const unsigned *)at);
	case QS_CONFIG_SIZE:
		return json_integer((json_int_t) * (const uint64_t *)at);
	case QS_CONFIG_BOOL:
		return json_boolean(*(const bool *)at);
	default:
		return json_string(*(char *const *)at);
	}
}

json_t *qs_config_values(const struct qs_config *config)
{
	json_t *object = json_object();

	for (size_t i = 0; i < qs_config_row_count; i++)
		(void)json_object_set_new(object, qs_config_rows[i].name,
					  value_of(config, &qs_config_rows[i]));
	return object;
}
