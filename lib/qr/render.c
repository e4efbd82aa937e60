/*
 * The module: codes by libqrencode, two rows of modules in a line of text.
 */
#include <stdio.h>
#include <string.h>

#include <qrencode.h>

#include "base/cleanup.h"
#include "qr/qr.h"

#define QUIET 4 /* modules on each side (ISO/IEC 18004) */

/* Bright white on black; the erased rest of the line would be white in some terminals. */
#define BEGIN "\033[40;97m"
#define END "\033[0m\n"

/* Light modules are drawn; bit 0 is the upper one. All of three bytes or, for none, one. */
static const char *const blocks[] = { " ", "\u2580", "\u2584", "\u2588" };

static bool is_light(const QRcode *code, int x, int y)
{
	x -= QUIET;
	y -= QUIET;
	if (y >= code->width + QUIET)
		return false; /* below the last line, where the number of rows is odd */
	if (x < 0 || y < 0 || x >= code->width || y >= code->width)
		return true;
	return !(code->data[y * code->width + x] & 1);
}

static int draw(const QRcode *code, struct qs_secret *ret, struct qs_error *err)
{
	int side = code->width + 2 * QUIET;
	size_t line = sizeof(BEGIN) + (size_t)side * 3 + sizeof(END), used = 0;
	size_t size = line * ((size_t)side / 2 + 1);
	int r = qs_secret_init(ret, size, err);

	for (int y = 0; r == 0 && y < side; y += 2) {
		used += (size_t)snprintf((char *)ret->data + used, size - used, "%s", BEGIN);
		for (int x = 0; x < side; x++) {
			int both = is_light(code, x, y) | is_light(code, x, y + 1) << 1;

			used += (size_t)snprintf((char *)ret->data + used, size - used, "%s",
						 blocks[both]);
		}
		used += (size_t)snprintf((char *)ret->data + used, size - used, "%s", END);
	}
	ret->size = used;
	return r;
}

static int render(const struct qs_secret *text, struct qs_secret *ret, unsigned *ret_columns,
		  struct qs_error *err)
{
	QRcode *code = QRcode_encodeData((int)text->size, text->data, 0, QR_ECLEVEL_L);
	int r = code ? draw(code, ret, err)
		     : qs_fail(err, QS_E_FAILED, "libqrencode made no QR code of the key");

	if (r == 0)
		*ret_columns = (unsigned)(code->width + 2 * QUIET);
	if (code)
		explicit_bzero(code->data, (size_t)code->width * (size_t)code->width);
	QRcode_free(code);
	return r;
}

QS_MODULE_EXPORT extern const struct qs_qr_functions qs_qr_module;
const struct qs_qr_functions qs_qr_module = {
	.module = { QS_QR_MODULE_VERSION },
	.render = render,
};
