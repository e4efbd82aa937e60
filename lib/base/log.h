/*
 * Logging with levels. The library only calls; the program installs the
 * receiver (stderr, journal). Never log key material, passphrases or tokens.
 */
#ifndef QS_BASE_LOG_H
#define QS_BASE_LOG_H

/* As in syslog(3), so that a journal receiver needs no mapping. */
enum qs_log_level {
	QS_LOG_ERROR = 3,
	QS_LOG_WARNING = 4,
	QS_LOG_NOTICE = 5,
	QS_LOG_INFO = 6,
	QS_LOG_DEBUG = 7,
};

typedef void qs_log_receiver(enum qs_log_level level, const char *message, void *cookie);

/*
 * Install the receiver for messages up to and including MAX_LEVEL; NULL drops
 * all. Messages of libcryptsetup arrive here too, once qs_log_catch_crypt() ran.
 */
void qs_log_install(qs_log_receiver *receiver, enum qs_log_level max_level, void *cookie);

/* From now on the messages of the same levels go to RECEIVER. */
void qs_log_redirect(qs_log_receiver *receiver, void *cookie);

/*
 * Send libcryptsetup's global messages to the receiver instead of stdout and
 * stderr; its errors count as QS_LOG_DEBUG, since ours carry the sentence.
 */
void qs_log_catch_crypt(void);

/* One message, a line without its newline. */
void qs_log(enum qs_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
