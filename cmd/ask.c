#define _GNU_SOURCE
#include "ask.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "key/passphrase.h"

/* How often somebody may type two passphrases that differ. */
#define TRIES 3

static volatile sig_atomic_t got_signal;

static void on_signal(int number)
{
	got_signal = number;
}

static volatile sig_atomic_t alarmed;

static void on_alarm(int number)
{
	(void)number;
	alarmed = 1;
}

/* The terminal without echo, and signals held back until the read waits for them. */
struct quiet {
	struct termios before;
	sigset_t mask;
	struct sigaction interrupt, terminate, hangup;
};

static int quiet_begin(struct quiet *q)
{
	const struct sigaction catch = { .sa_handler = on_signal };
	struct termios off;
	sigset_t block;

	if (tcgetattr(STDIN_FILENO, &q->before) < 0)
		return -errno;
	got_signal = 0;
	(void)sigemptyset(&block);
	(void)sigaddset(&block, SIGINT);
	(void)sigaddset(&block, SIGTERM);
	(void)sigaddset(&block, SIGHUP);
	(void)sigaddset(&block, SIGTSTP); /* stopped only when the echo is on again */
	(void)sigprocmask(SIG_BLOCK, &block, &q->mask);
	(void)sigaction(SIGINT, &catch, &q->interrupt);
	(void)sigaction(SIGTERM, &catch, &q->terminate);
	(void)sigaction(SIGHUP, &catch, &q->hangup);
	off = q->before;
	off.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	/* TCSAFLUSH: what was typed before the question is no answer to it. */
	return tcsetattr(STDIN_FILENO, TCSAFLUSH, &off) < 0 ? -errno : 0;
}

static void quiet_end(const struct quiet *q)
{
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &q->before);
	(void)sigaction(SIGINT, &q->interrupt, NULL);
	(void)sigaction(SIGTERM, &q->terminate, NULL);
	(void)sigaction(SIGHUP, &q->hangup, NULL);
	(void)sigprocmask(SIG_SETMASK, &q->mask, NULL);
}

/* One line; the terminal hands it over whole, and signals come only while this waits. */
static ssize_t read_line(struct qs_secret *s, const sigset_t *mask)
{
	struct pollfd p = { STDIN_FILENO, POLLIN, 0 };
	sigset_t waiting = *mask;
	ssize_t n;

	(void)sigaddset(&waiting, SIGTSTP);
	n = ppoll(&p, 1, NULL, &waiting);
	if (n < 0 || got_signal)
		return -EINTR;
	n = read(STDIN_FILENO, s->data, s->size);
	return n < 0 ? -errno : n;
}

/* Where standard error is a log, what is typed on has to show the question. */
static void show(const char *prompt, const char *end)
{
	dprintf(isatty(STDERR_FILENO) ? STDERR_FILENO : STDIN_FILENO, "%s%s", prompt, end);
}

static int type_once(const char *prompt, struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	struct quiet q;
	ssize_t n;
	int r = qs_secret_init(&s, QS_PASSPHRASE_MAX + 2, err);

	if (r < 0)
		return r;
	show(prompt, ": ");
	r = quiet_begin(&q);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot turn off the terminal's echo");
	n = read_line(&s, &q.mask);
	quiet_end(&q);
	show("", "\n");
	if (n == -EINTR)
		return qs_fail(err, QS_E_INTERRUPTED, "interrupted, no passphrase was given");
	if (n < 0)
		return qs_fail_errno(err, (int)n, "cannot read from the terminal");
	r = qs_passphrase_finish(&s, (size_t)n, "the terminal", err);
	if (r == 0)
		*ret = qs_secret_move(&s);
	return r;
}

static int type_twice(const char *prompt, struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *again = qs_printf("%s again", prompt);

	for (int i = 0; i < TRIES; i++) {
		QS_AUTO(qs_secret_done) struct qs_secret first = {};
		QS_AUTO(qs_secret_done) struct qs_secret second = {};
		int r = type_once(prompt, &first, err);

		if (r == 0)
			r = type_once(again, &second, err);
		if (r < 0)
			return r;
		if (qs_secret_equal(&first, &second)) {
			*ret = qs_secret_move(&first);
			return 0;
		}
		fputs("The two differ.\n", stderr);
	}
	return qs_fail(err, QS_E_UNCONFIRMED, "the passphrase was never typed alike twice");
}

bool qs_ask_given(const struct qs_context *ctx, const struct qs_ask *ask)
{
	return qs_option_given(ctx, ask->file_option) || qs_option_given(ctx, ask->fd_option);
}

/* WISHED: by an option, which is enough, even if standard error is none. */
static int from_terminal(const struct qs_context *ctx, const struct qs_ask *ask, bool wished,
			 struct qs_secret *ret, struct qs_error *err)
{
	if (ctx->json || !isatty(STDIN_FILENO) || (!wished && !isatty(STDERR_FILENO)))
		return qs_fail(err, QS_E_USAGE, "no passphrase: give --%s or --%s (not asked %s)",
			       ask->file_option, ask->fd_option,
			       ctx->json ? "with --json" : "without a terminal");
	qs_progress_clear();
	return ask->twice ? type_twice(ask->prompt, ret, err) : type_once(ask->prompt, ret, err);
}

static int get(const struct qs_context *ctx, const struct qs_ask *ask, struct qs_secret *ret,
	       struct qs_error *err)
{
	const char *file = qs_option_value(ctx, ask->file_option);
	const char *number = qs_option_value(ctx, ask->fd_option);
	QS_AUTO(qs_auto_free) char *name = NULL;

	if (file && number)
		return qs_fail(err, QS_E_USAGE, "--%s and --%s cannot both be given",
			       ask->file_option, ask->fd_option);
	if (file && strcmp(file, "-") == 0)
		return isatty(STDIN_FILENO)
			       ? from_terminal(ctx, ask, true, ret, err)
			       : qs_passphrase_read_fd(STDIN_FILENO, "standard input", ret, err);
	if (file)
		return qs_passphrase_read_file(file, ret, err);
	if (!number)
		return from_terminal(ctx, ask, false, ret, err);
	name = qs_printf("descriptor %s", number);
	return qs_passphrase_read_fd((int)qs_option_number(ctx, ask->fd_option), name, ret, err);
}

/* Every second from the deadline on: the signal only ends a wait that has begun. */
static void start_alarm(unsigned seconds, struct sigaction *before)
{
	const struct sigaction catch = { .sa_handler = on_alarm };
	const struct itimerval timer = { .it_value = { .tv_sec = seconds },
					 .it_interval = { .tv_sec = 1 } };

	alarmed = 0;
	(void)sigaction(SIGALRM, &catch, before);
	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

static void stop_alarm(const struct sigaction *before)
{
	const struct itimerval none = {};

	(void)setitimer(ITIMER_REAL, &none, NULL);
	(void)sigaction(SIGALRM, before, NULL);
}

int qs_ask_passphrase(const struct qs_context *ctx, const struct qs_ask *ask, struct qs_secret *ret,
		      struct qs_error *err)
{
	char seconds[QS_TEXT_SIZE_L];
	struct sigaction before;
	struct qs_error own = {};
	int r;

	if (ask->deadline_s == 0)
		return get(ctx, ask, ret, err);
	start_alarm(ask->deadline_s, &before);
	r = get(ctx, ask, ret, &own);
	stop_alarm(&before);
	if (r < 0 && own.kind == QS_E_INTERRUPTED && alarmed)
		return qs_fail(err, QS_E_DEADLINE, "nobody answered within %s",
			       qs_text_seconds(ask->deadline_s, seconds));
	if (r < 0)
		*err = own;
	return r;
}

static const struct qs_ask keystore_pin = {
	.file_option = "pin-file",
	.fd_option = "pin-fd",
	.prompt = "PIN of the keystore",
};

static int type_keystore_pin(void *cookie, bool new_one, struct qs_secret *ret,
			     struct qs_error *err)
{
	(void)cookie;
	qs_progress_clear();
	return new_one ? type_twice("New PIN for the keystore", ret, err)
		       : type_once(keystore_pin.prompt, ret, err);
}

void qs_ask_offer_keystore(struct qs_context *ctx)
{
	if (!ctx->json && isatty(STDIN_FILENO) && isatty(STDERR_FILENO))
		ctx->keystore.ask_pin = type_keystore_pin;
}

int qs_ask_keystore_pin(struct qs_context *ctx, struct qs_secret *ret, struct qs_error *err)
{
	int r = qs_ask_given(ctx, &keystore_pin) ? qs_ask_passphrase(ctx, &keystore_pin, ret, err)
						 : 0;

	if (ret->data)
		ctx->keystore.pin = ret;
	return r;
}
