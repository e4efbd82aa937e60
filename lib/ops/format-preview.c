/*
 * What a forced format would overwrite, for the question before it.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "ops/internal.h"

/* A clause about what is on the device; NULL: nothing. What cannot be read may be anything. */
static char *loss(const struct qs_device *dev)
{
	QS_AUTO(qs_auto_close) int fd = open(dev->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_auto_free) char *signatures = NULL;
	struct qs_error error = {};
	int r;

	if (fd < 0)
		return qs_printf("cannot be looked at: %s", strerror(errno));
	r = qs_device_signatures(fd, dev->node, &signatures, &error);
	if (r >= 0 && signatures)
		return qs_printf("holds %s", signatures);
	if (r >= 0)
		r = qs_device_is_blank(fd, dev->node, &error);
	if (r < 0)
		return qs_printf("cannot be looked at: %s", error.text);
	return r > 0 ? NULL : qs_strdup("holds data of an unknown kind");
}

void qs_outcome_detail_disk(struct qs_outcome *outcome, const struct qs_device *dev)
{
	qs_outcome_detail(outcome, "size", json_integer((json_int_t)dev->size));
	if (dev->model)
		qs_outcome_detail(outcome, "model", qs_utf8_json(dev->model));
	if (dev->serial)
		qs_outcome_detail(outcome, "serial", qs_utf8_json(dev->serial));
}

void qs_format_preview(const struct qs_env *env, const char *const *devices, size_t count,
		       struct qs_outcomes *ret)
{
	for (size_t i = 0; i < count; i++) {
		QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
		QS_AUTO(qs_auto_free) char *note = NULL;
		struct qs_outcome *o;

		/* The format itself says what is wrong with a device that cannot be found. */
		if (qs_device_find(env, devices[i], &dev, NULL) < 0)
			continue;
		note = loss(dev);
		if (!note)
			continue;
		o = qs_outcomes_add(ret, devices[i]);
		qs_outcome_set_device(o, dev);
		qs_outcome_set(&o->note, note);
		qs_outcome_detail_disk(o, dev);
	}
}
