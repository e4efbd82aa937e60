/*
 * Answers of a Vault server, or of what stands in its place. The first byte says what status
 * they have and what was asked.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "transit/message.h"

#define ITEMS_MAX 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void read_batch(const json_t *answer, size_t count)
{
	struct qs_transit_item items[ITEMS_MAX] = {};

	if (qs_transit_read_encrypted(answer, 1, items, count, NULL) == 0)
		for (size_t i = 0; i < count; i++) {
			demand(items[i].done == (items[i].error.kind == QS_E_NONE));
			demand(!items[i].done || qs_transit_is_text(items[i].text));
		}
	memset(items, 0, sizeof(items));
	if (qs_transit_read_datakey(answer, 1, &items[0], NULL) == 0)
		demand(items[0].done && qs_transit_is_text(items[0].text));
	memset(items, 0, sizeof(items));
	if (qs_transit_read_decrypted(answer, items, count, NULL) == 0)
		for (size_t i = 0; i < count; i++)
			demand(items[i].done == (items[i].error.kind == QS_E_NONE));
}

static void read_all(const json_t *answer)
{
	QS_AUTO(qs_secret_done) struct qs_secret secret = {};
	struct qs_transit_login login;
	struct qs_transit_lifetime lifetime;
	struct qs_transit_key key;

	if (qs_transit_read_login(answer, &login, NULL) == 0)
		demand(*login.token && strlen(login.token) < sizeof(login.token));
	if (qs_transit_read_secret_id(answer, &secret, NULL) == 0)
		demand(secret.size > 0);
	if (qs_transit_read_key(answer, &key, NULL) == 0)
		demand(key.latest >= 1 && key.least <= key.latest);
	(void)qs_transit_read_wrapping(answer, NULL);
	qs_transit_read_lifetime(answer, &lifetime);
	demand(lifetime.ends >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const long statuses[] = {
		200, 204, 307, 400, 403, 404, 429, 500, 501, 503, 200, 299
	};
	struct qs_transit_answer a = { .about = "fuzzing" };
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	struct qs_transit_health health;
	struct qs_error err = {};

	if (size < 1)
		return 0;
	a.status = statuses[(data[0] & 0x1f) % QS_ARRAY_SIZE(statuses)];
	a.login = data[0] & 0x20;
	a.text = (const char *)data + 1;
	a.size = size - 1;
	if (qs_transit_judge(&a, &answer, &err) == QS_TRANSIT_DONE)
		demand(err.kind == QS_E_NONE);
	else
		demand(err.kind != QS_E_NONE && err.text[0] && !answer);
	if (answer) {
		read_all(answer);
		read_batch(answer, (data[0] >> 6) % ITEMS_MAX + 1);
	}
	if (qs_transit_read_health(a.text, a.size, &health, NULL) == 0)
		demand(health.version[0]);
	return 0;
}
