/*
 * Passphrases of people, from a file or a descriptor; the terminal's part is
 * cmd/ask.c. A passphrase is one line: its final newline is not part of it, so
 * that `echo secret >file` and the same typed on a terminal agree. (A key file
 * is bytes, taken as they are: key/keyfile.h.)
 */
#ifndef QS_KEY_PASSPHRASE_H
#define QS_KEY_PASSPHRASE_H

#include "base/error.h"
#include "base/secret.h"

/* Bytes. What cryptsetup takes from a terminal (cryptsetup --help, 2.6.1), so that stock tools open
   with it. */
#define QS_PASSPHRASE_MAX 512

/*
 * Read one passphrase from FD up to its end. NAME stands in errors ("standard
 * input", "descriptor 5"). FD stays open. Waits as long as a pipe takes; SIGINT
 * and SIGTERM end that when they are caught.
 * Returns: QS_E_KEY_FILE empty, longer than QS_PASSPHRASE_MAX, several lines, or
 * a NUL byte in it; QS_E_INTERRUPTED.
 */
int qs_passphrase_read_fd(int fd, const char *name, struct qs_secret *ret, struct qs_error *err);

/*
 * The same from the file PATH (a real path). A regular file must be private, as
 * a key file must; a FIFO (`--passphrase-file <(pass show backup)`) is waited for.
 */
int qs_passphrase_read_file(const char *path, struct qs_secret *ret, struct qs_error *err);

/*
 * Check and cut what was read: *s holds SIZE bytes at its start. For whoever
 * reads by himself (a terminal). Errors as above.
 */
int qs_passphrase_finish(struct qs_secret *s, size_t size, const char *name, struct qs_error *err);

#endif
