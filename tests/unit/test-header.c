#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "headers.h"
#include "image.h"
#include "luks/header.h"

/* Replaces libc's: a read that begins here fails as on a bad sector. */
static off64_t bad_sector = -1;

ssize_t pread64(int fd, void *data, size_t size, off64_t offset)
{
	if (offset == bad_sector) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, fd, data, size, offset);
}

static void test_a_stock_header_is_read_as_cryptsetup_shows_it(void **state)
{
	QS_AUTO(qs_auto_free) char *damage = NULL;
	QS_AUTO(qs_auto_free) char *uuid = NULL;
	struct qs_luks_header h;
	struct qs_error err = {};

	(void)state;
	fresh("luks2.img");
	assert_shell("cryptsetup config -q --label enc-a --subsystem qs-util " IMAGE);
	assert_shell("cryptsetup luksUUID " IMAGE " > uuid");
	assert_int_equal(qs_file_read("uuid", 100, &uuid, NULL, &err), 0);
	h = read_image(&damage);
	assert_int_equal(h.version, 2);
	assert_memory_equal(h.uuid, uuid, 36);
	assert_int_equal(h.uuid[36], '\0');
	assert_string_equal(h.label, "enc-a");
	assert_string_equal(h.subsystem, "qs-util");
	assert_string_equal(h.cipher, "aes-xts-plain64");
	assert_int_equal(h.key_size, 512);
	assert_int_equal(h.sector_size, 4096);
	assert_int_equal(h.metadata_size, COPY_L);
	assert_int_equal(h.data_offset, 5 * 1024 * 1024);
	assert_int_equal(h.seqid, 4);
	assert_false(h.copies_differ);
	assert_null(damage);
	qs_luks_header_done(&h);
	assert_null(h.json);
}

static void test_every_metadata_size_is_found_by_its_second_copy_alone(void **state)
{
	static const char *const sizes[] = { "16k",  "32k", "64k", "128k", "256k",
					     "512k", "1m",  "2m",  "4m" };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(sizes); i++) {
		QS_AUTO(qs_auto_free) char *command = NULL;

		assert_true(asprintf(&command,
				     "rm -f " IMAGE "; truncate -s 32M " IMAGE
				     "; cryptsetup -q luksFormat --pbkdf pbkdf2"
				     " --pbkdf-force-iterations 1000 --luks2-metadata-size %s"
				     " --luks2-keyslots-size 512k --key-file key " IMAGE,
				     sizes[i]) > 0);
		assert_shell(command);
		assert_header(2, QS_COPY_OK, QS_COPY_OK, NULL);
		assert_shell("dd if=/dev/zero of=" IMAGE " bs=4096 count=1 conv=notrunc");
		assert_header(2, QS_COPY_ABSENT, QS_COPY_OK, "second copy intact");
	}
}

static void test_one_flipped_bit_anywhere_in_a_copy_is_noticed(void **state)
{
	static const off_t places[] = { 6,   8,   16,  24,  72,   104,  168,    208,
					256, 264, 448, 512, 4095, 4096, 130000, 131071 };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(places); i++) {
		QS_AUTO(qs_auto_free) char *damage = NULL;
		QS_AUTO(qs_auto_free) char *bytes = NULL;
		struct qs_luks_header h;
		char flipped;

		fresh("luks2.img");
		bytes = first_bytes();
		flipped = (char)(bytes[places[i]] ^ 4);
		write_at(places[i], &flipped, 1);
		h = read_image(&damage);
		if (h.copy[0] == QS_COPY_OK || h.copy[1] != QS_COPY_OK || !damage)
			fail_msg("byte %jd: copies %d, %d", (intmax_t)places[i], h.copy[0],
				 h.copy[1]);
		qs_luks_header_done(&h);
	}
}

static void test_the_copy_with_the_larger_sequence_id_counts(void **state)
{
	QS_AUTO(headers_done) struct headers_pair pair = {};
	QS_AUTO(qs_auto_free) char *damage = NULL;
	struct qs_luks_header h;

	(void)state;
	fresh("luks2.img");
	headers_load(IMAGE, &pair);
	headers_put_number(&pair, 1, HEADERS_SEQID, 90);
	json_object_set_new(json_object_get(json_object_get(pair.json, "segments"), "0"),
			    "encryption", json_string("serpent-xts-plain64"));
	headers_put_json(&pair, 1);
	headers_store(IMAGE, &pair, 1);
	h = read_image(&damage);
	assert_int_equal(h.seqid, 90);
	assert_string_equal(h.cipher, "serpent-xts-plain64");
	assert_true(h.copies_differ);
	assert_null(damage);
	qs_luks_header_done(&h);
	/* libcryptsetup decides alike. */
	assert_shell("cryptsetup luksDump " IMAGE " | grep serpent-xts-plain64");
}

/* Edit the binary block of copy WHICH and expect that it is told apart from a good one. */
static void assert_field_refused(unsigned which, enum headers_field field, uint64_t value)
{
	QS_AUTO(headers_done) struct headers_pair pair = {};

	fresh("luks2.img");
	headers_load(IMAGE, &pair);
	headers_put_number(&pair, which, field, value);
	headers_store(IMAGE, &pair, which);
	if (which == 0)
		assert_header(2, QS_COPY_BAD_SIZE, QS_COPY_OK,
			      "the first copy has impossible sizes or is cut off, second");
	else
		assert_header(2, QS_COPY_OK, QS_COPY_BAD_SIZE,
			      "first copy intact, the second copy has impossible sizes");
}

static void test_impossible_sizes_are_refused_before_memory_is_asked_for(void **state)
{
	static const uint64_t sizes[] = { 0,      1,        4096,       0x3fff,    0x5000,
					  131073, 0x800000, 1ULL << 63, UINT64_MAX };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(sizes); i++)
		assert_field_refused(0, HEADERS_SIZE, sizes[i]);
	assert_field_refused(0, HEADERS_OFFSET, 4096);
	assert_field_refused(1, HEADERS_OFFSET, 4096);
	assert_field_refused(1, HEADERS_SIZE, 0x4000);
}

static void test_a_cut_off_image_is_damage_and_not_an_error(void **state)
{
	(void)state;
	fresh("luks2.img");
	assert_shell("truncate -s 70000 " IMAGE);
	assert_header(0, QS_COPY_BAD_SIZE, QS_COPY_ABSENT,
		      "LUKS header damaged: the first copy has impossible sizes or is cut off");
	assert_shell("truncate -s 4095 " IMAGE);
	assert_header(0, QS_COPY_ABSENT, QS_COPY_ABSENT, "no LUKS header");
	assert_shell("truncate -s 0 " IMAGE);
	assert_header(0, QS_COPY_ABSENT, QS_COPY_ABSENT, "no LUKS header: neither copy is there");
}

static void test_a_uuid_that_is_none_makes_the_copy_unusable(void **state)
{
	QS_AUTO(headers_done) struct headers_pair pair = {};

	(void)state;
	fresh("luks2.img");
	headers_load(IMAGE, &pair);
	memset(pair.copy[0] + 168, 0, 40);
	memcpy(pair.copy[0] + 168, "../../../etc/shadow", 19);
	headers_store(IMAGE, &pair, 0);
	assert_header(2, QS_COPY_BAD_SIZE, QS_COPY_OK, "second copy intact");
}

static void test_labels_cannot_carry_terminal_sequences(void **state)
{
	QS_AUTO(headers_done) struct headers_pair pair = {};
	QS_AUTO(qs_auto_free) char *damage = NULL;
	struct qs_luks_header h;

	(void)state;
	fresh("luks2.img");
	headers_load(IMAGE, &pair);
	memset(pair.copy[0] + 24, 'A', 48);
	memcpy(pair.copy[0] + 24, "\x1b[2J\xff\n", 6);
	headers_store(IMAGE, &pair, 0);
	h = read_image(&damage);
	assert_memory_equal(h.label, "?[2J??AAA", 9);
	assert_int_equal(strlen(h.label), 47);
	qs_luks_header_done(&h);
}

/* Give both copies this metadata text. */
static void assert_text_refused(const char *text, size_t length)
{
	QS_AUTO(headers_done) struct headers_pair pair = {};

	fresh("luks2.img");
	headers_load(IMAGE, &pair);
	for (unsigned i = 0; i < 2; i++) {
		headers_put_text(&pair, i, text, length);
		headers_store(IMAGE, &pair, i);
	}
	assert_header(0, QS_COPY_BAD_JSON, QS_COPY_BAD_JSON,
		      "LUKS2 header damaged: the metadata of the first copy is unusable, the "
		      "metadata of the second copy is unusable; 'qs-util cryptrestore");
}

static void test_metadata_that_is_no_usable_json_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"{",
		"{}",
		"[]",
		"null",
		" {}",
		"{\"keyslots\":{}",
		"{\"config\":{\"json_size\":\"1\"},\"digests\":{},\"keyslots\":{},\"segments\":{},"
		"\"tokens\":{}}",
		"{\"config\":{\"json_size\":\"126976\"},\"digests\":{},\"keyslots\":{},"
		"\"segments\":{},\"tokens\":[]}",
		"{\"config\":{\"json_size\":\"126976\"},\"config\":{\"json_size\":\"126976\"},"
		"\"digests\":{},\"keyslots\":{},\"segments\":{},\"tokens\":{}}",
		"{\"a\":\"\xff\"}",
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(texts); i++)
		assert_text_refused(texts[i], strlen(texts[i]));
}

/* The same decision as libcryptsetup about text that is only almost where it should be. */
static void test_stray_bytes_around_the_metadata_are_refused_as_by_stock(void **state)
{
	static char text[COPY_L - 4096];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		QS_AUTO(headers_done) struct headers_pair pair = {};

		fresh("luks2.img");
		headers_load(IMAGE, &pair);
		/* 0: a blank before it; 1: a letter behind its end; 2: blanks instead of its end */
		memset(text, i == 2 ? ' ' : 0, sizeof(text));
		text[0] = ' ';
		text[sizeof(text) - 1] = (char)(i == 1 ? 'x' : text[sizeof(text) - 1]);
		assert_true(json_dumpb(pair.json, text + (i == 0), sizeof(text) - 1, JSON_COMPACT) <
			    sizeof(text) - 1);
		assert_text_refused(text, sizeof(text));
		assert_int_not_equal(headers_shell("cryptsetup luksDump " IMAGE), 0);
	}
}

static void test_metadata_of_great_depth_is_refused(void **state)
{
	static char text[100000];

	(void)state;
	memset(text, '[', sizeof(text));
	text[0] = '{';
	text[1] = text[2] = '"';
	text[3] = ':';
	assert_text_refused(text, sizeof(text));
}

static void test_a_bad_sector_under_the_first_copy_leaves_the_second(void **state)
{
	(void)state;
	fresh("luks2.img");
	bad_sector = 0;
	assert_header(2, QS_COPY_IO, QS_COPY_OK,
		      "the first copy cannot be read, second copy intact");
	bad_sector = COPY_L;
	assert_header(2, QS_COPY_OK, QS_COPY_IO,
		      "first copy intact, the second copy cannot be read");
	bad_sector = -1;
}

static void test_a_bad_sector_without_a_second_copy_is_an_error(void **state)
{
	QS_AUTO(qs_auto_close) int fd = -1;
	struct qs_luks_header h = {};
	struct qs_error err = {};
	int r;

	(void)state;
	fresh("luks2.img");
	assert_shell("wipefs -a " IMAGE);
	fd = open(IMAGE, O_RDONLY | O_CLOEXEC);
	bad_sector = 0;
	r = qs_luks_header_read(fd, &h, &err);
	bad_sector = -1;
	assert_int_equal(r, -EIO);
	assert_int_equal(err.kind, QS_E_IO);
	assert_string_equal(err.text, "cannot read the LUKS header: Input/output error");
}

/* The copies that a peek found while the one at BAD could not be read. */
static void assert_peek(off64_t bad, enum qs_copy_state first, enum qs_copy_state second)
{
	QS_AUTO(qs_auto_close) int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);
	struct qs_luks_header h = {};
	struct qs_error err = {};
	int r;

	bad_sector = bad;
	r = qs_luks_header_peek(fd, &h, &err);
	bad_sector = -1;
	assert_int_equal(r, 0);
	assert_int_equal(h.version, 2);
	assert_int_equal(strlen(h.uuid), 36);
	assert_non_null(h.json);
	assert_int_equal(h.copy[0], first);
	assert_int_equal(h.copy[1], second);
	qs_luks_header_done(&h);
}

static void test_a_peek_reads_the_second_copy_only_when_the_first_is_bad(void **state)
{
	(void)state;
	fresh("luks2.img");
	assert_peek(COPY_L, QS_COPY_OK, QS_COPY_ABSENT);
	assert_peek(0, QS_COPY_IO, QS_COPY_OK);
}

/* The on-disk format lets a copy name another sum, 72 bytes from its start; the sum is at 448. */
static void test_a_copy_may_be_summed_by_another_algorithm(void **state)
{
	QS_AUTO(qs_auto_free) char *bytes = NULL;
	int r;

	(void)state;
	fresh("luks2.img");
	bytes = first_bytes();
	memcpy(bytes + 72, "sha512", sizeof("sha512"));
	memset(bytes + 448, 0, 64);
	r = EVP_Digest(bytes, COPY_L, (uint8_t *)bytes + 448, NULL, EVP_sha512(), NULL);
	assert_int_equal(r, 1);
	write_at(0, bytes, COPY_L);
	assert_header(2, QS_COPY_OK, QS_COPY_OK, NULL);
	write_at(72, "sha513", sizeof("sha513"));
	assert_header(2, QS_COPY_BAD_SUM, QS_COPY_OK, "second copy intact");
}

static void test_luks1_is_read_and_its_impossible_fields_are_refused(void **state)
{
	static const struct {
		off_t at;
		const char *bytes;
	} wrong[] = {
		{ 208, "\xff\xff\xff\xff" }, /* keyslot 0: neither active nor disabled */
		{ 212, "\0\0\0\0" },         /* its iterations */
		{ 252, "\x7f\xff\xff\xff" }, /* its stripes */
		{ 108, "\x7f\xff\xff\xff" }, /* key size */
		{ 168, "../x" },
	};
	QS_AUTO(qs_auto_free) char *damage = NULL;
	struct qs_luks_header h;

	(void)state;
	assert_shell("truncate -s 8M luks1.img && cryptsetup -q luksFormat --type luks1"
		     " --pbkdf-force-iterations 1234 --key-file key luks1.img");
	fresh("luks1.img");
	h = read_image(&damage);
	assert_int_equal(h.version, 1);
	assert_int_equal(h.copy[0], QS_COPY_OK);
	assert_string_equal(h.cipher, "aes-xts-plain64");
	assert_int_equal(h.key_size, 512);
	assert_int_equal(h.sector_size, 512);
	assert_int_equal(h.data_offset, 4096 * 512);
	assert_int_equal(h.luks1_iterations[0], 1234);
	assert_int_equal(h.luks1_iterations[1], 0);
	assert_true(h.luks1_digest_iterations >= 1000);
	assert_int_equal(strlen(h.uuid), 36);
	assert_null(damage);
	qs_luks_header_done(&h);
	for (size_t i = 0; i < QS_ARRAY_SIZE(wrong); i++) {
		fresh("luks1.img");
		write_at(wrong[i].at, wrong[i].bytes, 4);
		assert_header(0, QS_COPY_BAD_SIZE, QS_COPY_ABSENT, "LUKS header damaged: ");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stock_header_is_read_as_cryptsetup_shows_it),
		cmocka_unit_test(test_every_metadata_size_is_found_by_its_second_copy_alone),
		cmocka_unit_test(test_one_flipped_bit_anywhere_in_a_copy_is_noticed),
		cmocka_unit_test(test_the_copy_with_the_larger_sequence_id_counts),
		cmocka_unit_test(test_impossible_sizes_are_refused_before_memory_is_asked_for),
		cmocka_unit_test(test_a_cut_off_image_is_damage_and_not_an_error),
		cmocka_unit_test(test_a_uuid_that_is_none_makes_the_copy_unusable),
		cmocka_unit_test(test_labels_cannot_carry_terminal_sequences),
		cmocka_unit_test(test_metadata_that_is_no_usable_json_is_refused),
		cmocka_unit_test(test_stray_bytes_around_the_metadata_are_refused_as_by_stock),
		cmocka_unit_test(test_metadata_of_great_depth_is_refused),
		cmocka_unit_test(test_a_bad_sector_under_the_first_copy_leaves_the_second),
		cmocka_unit_test(test_a_bad_sector_without_a_second_copy_is_an_error),
		cmocka_unit_test(test_a_peek_reads_the_second_copy_only_when_the_first_is_bad),
		cmocka_unit_test(test_a_copy_may_be_summed_by_another_algorithm),
		cmocka_unit_test(test_luks1_is_read_and_its_impossible_fields_are_refused),
	};

	return cmocka_run_group_tests(tests, image_setup, image_teardown);
}
