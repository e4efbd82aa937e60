/*
 * Modules: what only some commands need (the TPM's software stack, network
 * libraries) lies in shared objects that are loaded on demand, so that every
 * other command starts as if they were not there.
 *
 * They come from one directory: "modules" beside the running program, which a
 * build tree has, else the installed one, whose way from the program's own
 * directory was fixed when it was built (../lib/MULTIARCH/qs-util).
 * A module runs as root, so directory and file must belong to root (or to
 * whoever runs the program) and nobody else may write to them.
 */
#ifndef QS_BASE_MODULE_H
#define QS_BASE_MODULE_H

#include "base/error.h"

/* First member of the struct of functions that every module exports. */
struct qs_module {
	unsigned version; /* counts up with every change of that struct */
};

/* The one name that a module's shared object exports. */
#define QS_MODULE_EXPORT __attribute__((visibility("default")))

/*
 * Load NAME.so and find its struct SYMBOL, which must have this VERSION. It
 * stays loaded until the process ends; a second call is cheap. *ret is static.
 * QS_E_FAILED: not installed, of another version, or not loadable (libraries
 * missing); QS_E_NOT_PERMITTED: others may write to it.
 */
int qs_module_load(const char *name, const char *symbol, unsigned version,
		   const struct qs_module **ret, struct qs_error *err);

/*
 * For code of ours that another program loads: look beside FILE instead of the running
 * program, and then in INSTALLED, a way from FILE's directory. Both are kept, not copied.
 */
void qs_module_look_beside(const char *file, const char *installed);

#endif
