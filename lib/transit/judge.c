/*
 * What the answer of a Vault server means.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/utf8.h"
#include "luks/fields.h"
#include "transit/message.h"
#include "transit/refusals.h"

#define TEXT_MAX 400 /* characters of the server's own words */

/* The server's words, printable and in one line; "" if there are none. */
static void words_of(const json_t *body, char ret[TEXT_MAX])
{
	const json_t *errors = json_object_get(body, "errors");
	QS_AUTO(qs_auto_free) char *text = NULL;
	const char *first = json_string_value(json_array_get(errors, 0));
	size_t used = 0;

	*ret = '\0';
	if (!first || strlen(first) > QS_TRANSIT_ANSWER_MAX)
		return;
	text = qs_strdup(first);
	for (char *p = text; *p; p++)
		if (strchr("\n\t\r", *p))
			*p = ' ';
	first = strncmp(text, "1 error occurred:", 17) == 0 ? text + 17 : text;
	first += strspn(first, " *");
	{
		QS_AUTO(qs_auto_free) char *printable = qs_utf8_printable(first);

		used = strlen(printable);
		used = used < TEXT_MAX - 1 ? used : TEXT_MAX - 1;
		memcpy(ret, printable, used);
	}
	while (used > 0 && ret[used - 1] == ' ')
		used--;
	ret[used] = '\0';
}

static enum qs_transit_verdict refuse_login(const struct qs_transit_answer *a, const char *words,
					    struct qs_error *err)
{
	if (a->status == 403)
		(void)qs_fail(err, QS_E_NOT_PERMITTED,
			      "it refuses every login of this role (%s): after wrong secret-ids it "
			      "is locked for a while, or this address may not log in",
			      words);
	else if (strcmp(words, "missing client token") == 0)
		(void)qs_fail(err, QS_E_CONFIG,
			      "it has no AppRole at auth/approle: see vault_auth_mount in "
			      "qs-util.conf, and vault_namespace");
	else
		(void)qs_fail(err, QS_E_NOT_PERMITTED,
			      "it does not take the role-id with this secret-id (%s): they are not "
			      "a pair, or the secret-id has expired or is used up; have a new one "
			      "made",
			      words);
	return QS_TRANSIT_REFUSED;
}

static enum qs_transit_verdict refuse(const struct qs_transit_answer *a, const char *words,
				      struct qs_error *err)
{
	const struct qs_transit_refusal *known = qs_transit_refusal(words);

	if (known)
		(void)qs_fail(err, known->kind, "%s: %s", a->about, known->sentence);
	else if (*words)
		(void)qs_fail(err, QS_E_FAILED, "%s: it answers \"%s\" (status %ld)", a->about,
			      words, a->status);
	else if (a->status == 404)
		(void)qs_fail(err, QS_E_NO_KEY, "%s: it has no such key", a->about);
	else
		(void)qs_fail(err, QS_E_FAILED, "%s: it answers with status %ld", a->about,
			      a->status);
	return QS_TRANSIT_REFUSED;
}

static enum qs_transit_verdict cannot(const struct qs_transit_answer *a, const char *words,
				      struct qs_error *err)
{
	if (a->status >= 300 && a->status < 400)
		(void)qs_fail(
			err, QS_E_TEMPORARY,
			"it is a standby that sends us elsewhere (status %ld), and that is not "
			"followed: name every server in vault_servers",
			a->status);
	else if (a->status == 501)
		(void)qs_fail(err, QS_E_TEMPORARY, "it is not initialised");
	else if (a->status == 503 && strstr(words, "namespace"))
		(void)qs_fail(err, QS_E_TEMPORARY, "the namespace is locked or sealed (%s)", words);
	else if (a->status == 503 && strstr(words, "sealed"))
		(void)qs_fail(err, QS_E_TEMPORARY, "it is sealed");
	else
		(void)qs_fail(err, QS_E_TEMPORARY, "%s: it answers with status %ld%s%s", a->about,
			      a->status, *words ? ": " : "", words);
	return QS_TRANSIT_ELSEWHERE;
}

static enum qs_transit_verdict judge_failure(const struct qs_transit_answer *a, const json_t *body,
					     struct qs_error *err)
{
	char words[TEXT_MAX];

	words_of(body, words);
	if (a->status == 429 || a->status == 412) {
		(void)qs_fail(err, QS_E_TEMPORARY, "%s: it is busy (status %ld%s%s)", a->about,
			      a->status, *words ? ": " : "", words);
		return QS_TRANSIT_BUSY;
	}
	if (a->login && (a->status == 400 || a->status == 403))
		return refuse_login(a, words, err);
	if (a->status == 403) {
		(void)qs_fail(err, QS_E_NOT_PERMITTED,
			      "%s: it denies that (%s); the policy of our role must allow it",
			      a->about, words);
		return QS_TRANSIT_DENIED;
	}
	/* To 1.9 one item that is not authentic takes its whole batch along. */
	if (strstr(words, QS_TRANSIT_FORGED)) {
		(void)refuse(a, words, err);
		return a->status == 500 ? QS_TRANSIT_ONE_BAD : QS_TRANSIT_REFUSED;
	}
	if (a->status >= 400 && a->status < 420)
		return refuse(a, words, err);
	return cannot(a, words, err);
}

enum qs_transit_verdict qs_transit_judge(const struct qs_transit_answer *a, json_t **ret,
					 struct qs_error *err)
{
	QS_AUTO(qs_auto_json)
	json_t *body =
		a->size > 0 ? json_loadb(a->text, a->size, JSON_REJECT_DUPLICATES, NULL) : NULL;
	const json_t *data = json_object_get(body, "data");

	*ret = NULL;
	if (a->status == 204)
		return QS_TRANSIT_DONE;
	/* From 1.10 on a batch of which some failed has status 400. */
	if (json_is_object(body) &&
	    (a->status == 200 || (a->status >= 400 && json_object_get(data, "batch_results")))) {
		*ret = QS_TAKE(body);
		return QS_TRANSIT_DONE;
	}
	if (a->status != 200)
		return judge_failure(a, body, err);
	(void)qs_fail(
		err, QS_E_FAILED,
		"%s: its answer is not one of Vault's; does another service have this address?",
		a->about);
	return QS_TRANSIT_ELSEWHERE;
}
