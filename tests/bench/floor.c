/*
 * The floor under "open all" (goal G1f): nothing but libcryptsetup in forked
 * workers that share the devices out beforehand. No checks, no deadlines, no
 * report: what is above its time is what our own work costs.
 *
 * Usage: floor WORKERS DEVICE KEYFILE [DEVICE KEYFILE]...
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libcryptsetup.h>

static int prove(const char *device, const char *key_file)
{
	struct crypt_device *cd = NULL;
	char *key = NULL;
	size_t size = 0;
	int r = crypt_init(&cd, device);

	if (r == 0)
		r = crypt_load(cd, CRYPT_LUKS2, NULL);
	if (r == 0)
		r = crypt_keyfile_device_read(cd, key_file, &key, &size, 0, 0, 0);
	if (r == 0)
		r = crypt_activate_by_passphrase(cd, NULL, CRYPT_ANY_SLOT, key, size, 0);
	crypt_safe_free(key);
	crypt_free(cd);
	return r;
}

static void __attribute__((noreturn)) work(int worker, int workers, int argc, char **argv)
{
	int failed = 0;

	for (int i = 2 + 2 * worker; i + 1 < argc; i += 2 * workers)
		failed |= prove(argv[i], argv[i + 1]) < 0;
	_exit(failed);
}

int main(int argc, char **argv)
{
	int workers = argc > 1 ? atoi(argv[1]) : 0;
	int failed = workers < 1 || argc % 2;
	int status;

	for (int i = 0; i < workers; i++)
		if (fork() == 0)
			work(i, workers, argc, argv);
	while (wait(&status) > 0)
		failed |= status != 0;
	return failed;
}
