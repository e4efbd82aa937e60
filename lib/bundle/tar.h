/*
 * Tar headers (POSIX.1-1988 ustar), as `tar x` reads them: the form of what is
 * inside a key bundle.
 *
 * Why not libarchive: its buffers, and those of every tar library, are ordinary
 * memory that is neither locked nor wiped, and the content here is keys. This is
 * only the 512 byte header, encoded and decoded; content never passes through.
 */
#ifndef QS_BUNDLE_TAR_H
#define QS_BUNDLE_TAR_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"

#define QS_TAR_BLOCK 512U

/* prefix (155), a slash, name (100), and a NUL. */
#define QS_TAR_NAME_L 257

struct qs_tar_header {
	char name[QS_TAR_NAME_L]; /* a directory's without a slash at its end */
	bool directory;           /* else a regular file */
	uint64_t size;            /* bytes of content, which is padded to whole blocks */
	unsigned mode;            /* 0400 */
	time_t mtime;
};

/* True for a name that a header can hold. */
bool qs_tar_fits(const char *name);

/* Encode into BLOCK. The name must fit; owner and group are root. */
void qs_tar_encode(const struct qs_tar_header *h, unsigned char block[QS_TAR_BLOCK]);

/*
 * Decode BLOCK. Only what qs_tar_encode() makes is taken: another file type, a
 * wrong sum, a number that is not octal are QS_E_FAILED.
 * Returns 1 a header, 0 a block of zeros (the end of the archive).
 */
int qs_tar_decode(const unsigned char block[QS_TAR_BLOCK], struct qs_tar_header *ret,
		  struct qs_error *err);

#endif
