/*
 * keystore status: what there is, as text.
 */
#include <string.h>

#include "base/cleanup.h"
#include "keystore-actions.h"

/* What the TPM binds a generation to; by file, without asking it. */
static void print_tpm2(FILE *out, const json_t *tpm2)
{
	const char *problem = json_string_value(json_object_get(tpm2, "problem"));
	const char *pcrs = json_string_value(json_object_get(tpm2, "pcrs"));

	if (problem)
		fprintf(out, "; %s", problem);
	else if (pcrs)
		fprintf(out, "; TPM, %s%s%s", *pcrs ? "PCR " : "no PCR", pcrs,
			json_is_true(json_object_get(tpm2, "pin")) ? ", PIN" : "");
	fputs("\n", out);
}

/* Where it lives, if that is not where the current generation does. */
static void print_elsewhere(FILE *out, const json_t *object, const char *usual)
{
	const char *provider = json_string_value(json_object_get(object, "provider"));

	if (provider && usual && strcmp(provider, usual) != 0)
		fprintf(out, " (provider %s)", provider);
}

/* Which key of the server's it is. */
static void print_key(FILE *out, const json_t *key)
{
	const char *problem = json_string_value(json_object_get(key, "problem"));
	const char *space = json_string_value(json_object_get(key, "namespace"));
	const char *role = json_string_value(json_object_get(key, "role_id"));
	const char *cipher = json_string_value(json_object_get(key, "cipher"));

	if (problem)
		fprintf(out, "; %s", problem);
	else if (json_object_get(key, "version"))
		fprintf(out, "; version %d of %s%s%s%s%s",
			(int)json_integer_value(json_object_get(key, "version")),
			json_string_value(json_object_get(key, "name")),
			space ? ", namespace " : "", space ? space : "", role ? ", role " : "",
			role ? role : "");
	else if (key)
		fprintf(out, "; key %s there%s%s%s",
			json_string_value(json_object_get(key, "name")),
			cipher ? ", which wraps with " : "", cipher ? cipher : "",
			json_is_true(json_object_get(key, "adopted")) ? ", not of our making" : "");
}

static void print_generation(FILE *out, const json_t *g, const json_t *result)
{
	json_int_t current = json_integer_value(json_object_get(result, "generation"));
	json_int_t number = json_integer_value(json_object_get(g, "number"));
	int devices = (int)json_integer_value(json_object_get(g, "devices"));
	int backups = (int)json_integer_value(json_object_get(g, "backups"));

	fprintf(out, "  generation %d%s", (int)number, number == current ? " (current)" : "");
	print_elsewhere(out, g, json_string_value(json_object_get(result, "provider")));
	if (json_object_get(g, "line"))
		fputs(", a key for some devices only", out);
	fprintf(out, ", of %s, for %d device%s and %d header backup%s",
		json_string_value(json_object_get(g, "created")), devices, devices == 1 ? "" : "s",
		backups, backups == 1 ? "" : "s");
	print_key(out, json_object_get(g, "key"));
	print_tpm2(out, json_object_get(g, "tpm2"));
}

static const char *text_of(const json_t *object, const char *field)
{
	return json_string_value(json_object_get(object, field));
}

static void print_check(FILE *out, const json_t *last)
{
	const char *succeeded = text_of(last, "succeeded");

	if (last)
		fprintf(out, "  last check on %s; the last one that had the keys on %s\n",
			text_of(last, "time"), succeeded ? succeeded : "no day that is known");
}

static void print_expiry(FILE *out, const json_t *server, const char *field, const char *what)
{
	if (text_of(server, field))
		fprintf(out, "  %s ends on %s\n", what, text_of(server, field));
}

static void print_server(FILE *out, const json_t *server)
{
	if (text_of(server, "problem"))
		fprintf(out, "  not %s: %s\n",
			json_object_get(server, "asked") ? "asked" : "reachable",
			text_of(server, "problem"));
	else
		fprintf(out, "  key server %s, %s %s, answered in %d ms\n",
			text_of(server, "address"),
			json_object_get(server, "sealed") ? "Vault or OpenBao" : "KMIP",
			text_of(server, "version"),
			(int)json_integer_value(json_object_get(server, "answered_ms")));
	print_expiry(out, server, "certificate_expires", "this machine's certificate");
	print_expiry(out, server, "server_expires", "the server's certificate");
	print_expiry(out, server, "ca_expires", "the authority's certificate");
	print_expiry(out, server, "secret_id_expires", "the secret-id");
	if (json_object_get(server, "secret_id_uses"))
		fprintf(out, "  the secret-id may be used %d times more\n",
			(int)json_integer_value(json_object_get(server, "secret_id_uses")));
}

static void print_lease(FILE *out, const json_t *lease)
{
	const json_t *left = json_object_get(lease, "boots_left");
	int generation = (int)json_integer_value(json_object_get(lease, "generation"));

	if (text_of(lease, "problem")) {
		fprintf(out, "  generation %d has a lease that opens nothing: %s\n", generation,
			text_of(lease, "problem"));
		return;
	}
	fprintf(out, "  generation %d opens devices without the key server", generation);
	if (text_of(lease, "until"))
		fprintf(out, " until %s", text_of(lease, "until"));
	if (left)
		fprintf(out, "%s for %d more start%s (of %d)",
			text_of(lease, "until") ? " and" : "", (int)json_integer_value(left),
			json_integer_value(left) == 1 ? "" : "s",
			(int)json_integer_value(json_object_get(lease, "boots")));
	fputs("\n", out);
}

static void print_leases(FILE *out, const json_t *result)
{
	const char *state = text_of(result, "lease_state");
	const json_t *leases = json_object_get(result, "leases"), *item;
	size_t i;

	json_array_foreach(leases, i, item) print_lease(out, item);
	if (state && strcmp(state, "off") == 0)
		fputs("  leases: off (kms_lease)\n", out);
	else if (state && strcmp(state, "missing") == 0)
		fprintf(out, "  leases: %s: keystore check makes one when a server gives the key\n",
			leases ? "a generation has none yet" : "none yet");
}

static void print_rotation(FILE *out, const json_t *result, const char *provider)
{
	const json_t *rotation = json_object_get(result, "rotation");

	if (!rotation) {
		if (text_of(result, "rotation_state"))
			fprintf(out, "  rotation: %s\n", text_of(result, "rotation_state"));
		return;
	}
	fprintf(out, "  rotation to generation %d",
		(int)json_integer_value(json_object_get(rotation, "generation")));
	print_elsewhere(out, rotation, provider);
	fprintf(out, ": %s, %d of %d devices done (keystore rotate goes on)\n",
		text_of(rotation, "state"),
		(int)json_integer_value(json_object_get(rotation, "done")),
		(int)json_integer_value(json_object_get(rotation, "total")));
}

static void print_status(FILE *out, const json_t *result)
{
	const char *provider = json_string_value(json_object_get(result, "provider"));
	const json_t *item;
	size_t i;

	fprintf(out, "The keystore is %s", json_string_value(json_object_get(result, "state")));
	if (provider)
		fprintf(out, ": provider %s, store %s", provider,
			json_string_value(json_object_get(result, "store")));
	fputs("\n", out);
	print_rotation(out, result, provider);
	json_array_foreach(json_object_get(result, "generations"), i, item)
		print_generation(out, item, result);
	if (json_object_get(result, "server"))
		print_server(out, json_object_get(result, "server"));
	json_array_foreach(json_object_get(result, "key_servers"), i, item)
	{
		fprintf(out, "  for generation %d:\n",
			(int)json_integer_value(json_object_get(item, "generation")));
		print_server(out, item);
	}
	print_leases(out, result);
	print_check(out, json_object_get(result, "last_check"));
	json_array_foreach(json_object_get(result, "warnings"), i, item)
		fprintf(out, "  warning: %s\n", json_string_value(item));
	json_array_foreach(json_object_get(result, "unreadable"), i, item)
		fprintf(out, "  not looked at: %s\n", json_string_value(item));
	qs_keystore_print_schedule(out, result);
	qs_keystore_print_retained(out, result);
}

int qs_keystore_action_status(struct qs_context *ctx, struct qs_error *err)
{
	size_t size = 0;
	FILE *out;
	int r = qs_keystore_status(&ctx->env, &ctx->result, err);

	if (r < 0)
		return r;
	out = open_memstream(&ctx->text, &size);
	if (!out)
		return qs_fail_errno(err, errno, "cannot print the state");
	print_status(out, ctx->result);
	return fclose(out) == 0 ? 0 : qs_fail_errno(err, errno, "cannot print the state");
}
