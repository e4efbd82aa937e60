/*
 * The peer of crypttabrepair (goals G8, G8b): every key is tried on every device
 * until one fits, with nothing but libcryptsetup. Keys are read once and each
 * header is loaded once, so that only the key derivations count.
 *
 * Usage: naive COUNTFILE DEVICE... -- KEYFILE...
 * COUNTFILE gets the number of key derivations. Exit status 1 when a device
 * stays without a key.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libcryptsetup.h>

struct key {
	char *bytes;
	size_t size;
};

static unsigned long tries;

static bool find_key(const char *device, const struct key *keys, int count)
{
	struct crypt_device *cd = NULL;
	bool found = false;

	if (crypt_init(&cd, device) < 0 || crypt_load(cd, CRYPT_LUKS, NULL) < 0)
		exit(1);
	for (int i = 0; i < count && !found; i++) {
		tries++;
		found = crypt_activate_by_passphrase(cd, NULL, CRYPT_ANY_SLOT, keys[i].bytes,
						     keys[i].size, 0) >= 0;
	}
	crypt_free(cd);
	return found;
}

int main(int argc, char **argv)
{
	int devices = 0, count, failed = 0;
	struct key *keys;
	FILE *out;

	while (devices + 2 < argc && strcmp(argv[devices + 2], "--") != 0)
		devices++;
	count = argc - devices - 3;
	if (count < 1)
		return 64;
	keys = calloc((size_t)count, sizeof(*keys));
	for (int i = 0; keys && i < count; i++)
		if (crypt_keyfile_device_read(NULL, argv[devices + 3 + i], &keys[i].bytes,
					      &keys[i].size, 0, 0, 0) < 0)
			return 1;
	for (int i = 0; keys && i < devices; i++)
		failed |= !find_key(argv[2 + i], keys, count);
	out = fopen(argv[1], "w");
	if (!out || fprintf(out, "%lu\n", tries) < 0 || fclose(out) != 0)
		return 1;
	return failed;
}
