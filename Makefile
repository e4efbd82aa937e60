# qs-util: `make help` lists what can be made.

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
SYSCONFDIR ?= /etc
MANDIR ?= $(PREFIX)/share/man
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
MODULEDIR ?= $(PREFIX)/lib/$(shell $(CC) -print-multiarch)/qs-util
DESTDIR ?=
CC ?= gcc
CLANG ?= clang
BUILD ?= build
VERSION := 0.1

SANITIZE ?=
WERROR ?= 0
V ?= 0

CORE_LIBS = libcryptsetup blkid libudev mount libconfig jansson libcrypto

# Loaded on demand (lib/base/module.h): each is a folder of lib and has libraries of its own.
# The program finds them by their place beside its own, so that PREFIX is only for install.
MODULES_FROM_SBIN := $(shell realpath -m --relative-to=$(SBINDIR) $(MODULEDIR))
MODULES = tpm2 journal qr jose kmip hcvault
LIBS_tpm2 = tss2-esys tss2-mu tss2-rc tss2-tctildr libargon2
LIBS_journal = libsystemd
LIBS_qr = libqrencode
LIBS_jose = jose
LIBS_kmip = libssl libcrypto
LIBS_hcvault = libcurl

# A plugin of libcryptsetup, for other programs: they look for it in this directory, which was
# fixed when libcryptsetup was built. It finds our modules in ../qs-util from there.
TOKENDIR ?= /usr/lib/$(shell $(CC) -print-multiarch)/cryptsetup
TOKEN_MODULES := $(shell realpath -m $(TOKENDIR)/../qs-util)
PLUGIN = $(BUILD)/libcryptsetup-token-qs-keystore.so

WARNINGS = -Wall -Wextra -Wshadow -Wvla -Wundef -Wmissing-prototypes -Wstrict-prototypes \
	-Wformat=2 -Wimplicit-fallthrough
QS_CFLAGS = -std=gnu17 $(WARNINGS) -Ilib -Icmd -fvisibility=hidden -fPIC \
	-D_FILE_OFFSET_BITS=64 -DQS_VERSION='"$(VERSION)"' \
	-DQS_MODULE_DIR='"$(MODULES_FROM_SBIN)"'
QS_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--as-needed
# Symbols are looked for in the libraries in the order of the link line, and most
# are in these two: named first, they save a tenth of the dynamic loader's time.
FIRST_LIBS = -Wl,--no-as-needed -lc -lcrypto -Wl,--as-needed
ifneq ($(SANITIZE),)
FIRST_LIBS =
CFLAGS ?= -O1 -g
QS_CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all
QS_LDFLAGS += -fsanitize=$(SANITIZE)
else
CFLAGS ?= -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
endif
ifeq ($(WERROR),1)
QS_CFLAGS += -Werror
endif

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-6s %s\n' '$(1)' '$(2)')

LIB_SRC := $(sort $(filter-out $(MODULES:%=lib/%/%) lib/plugin/%,$(wildcard lib/*/*.c)))
MODULE_SRC := $(sort $(wildcard $(MODULES:%=lib/%/*.c)))
MODULE_SO := $(MODULES:%=$(BUILD)/modules/%.so)
CMD_SRC := $(sort $(wildcard cmd/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/*.c))
MAN8 := $(sort $(wildcard man/*.8))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz-*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
MODULE_OBJ := $(MODULE_SRC:%.c=$(BUILD)/%.o)
CMD_OBJ := $(CMD_SRC:%.c=$(BUILD)/%.o)
# tests/unit: test-*.c and mk*.c are programs, the other files belong to all of them.
UNIT_SHARED := $(filter-out tests/unit/test-%.c tests/unit/mk%.c,$(UNIT_SRC))
UNIT_BIN := $(patsubst %.c,$(BUILD)/%,$(filter-out $(UNIT_SHARED),$(UNIT_SRC)))
FUZZ_BIN := $(FUZZ_SRC:%.c=$(BUILD)/%)

all: $(BUILD)/qs-util $(MODULE_SO)

# A changed flag or compiler rebuilds everything: objects depend on this file,
# which is rewritten only when its content differs.
FLAGS_NOW := $(CC) $(QS_CFLAGS) $(CPPFLAGS) $(CFLAGS) $(QS_LDFLAGS) $(LDFLAGS) $(FIRST_LIBS)
quoted = '$(subst ','\'',$(FLAGS_NOW))'
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo $(quoted) | cmp -s - $@ || echo $(quoted) > $@

PKG_CFLAGS = $(shell pkg-config --cflags $(CORE_LIBS))
PKG_LIBS = $(shell pkg-config --libs $(CORE_LIBS))

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(QS_CFLAGS) $(PKG_CFLAGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libqs.a: $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/qs-util: $(CMD_OBJ) $(BUILD)/libqs.a
	$(call say,LD,$@)
	$(Q)$(CC) $(QS_CFLAGS) $(CFLAGS) $(QS_LDFLAGS) $(LDFLAGS) $(FIRST_LIBS) -o $@ $^ $(PKG_LIBS)

# A module has its own copy of the few things of libqs.a that it uses. Sanitizers want their
# symbols from the program that loads it.
MODULE_DEFS = $(if $(SANITIZE),,-Wl,-z,defs)
define module_rule
$(BUILD)/modules/$(1).so: $(patsubst %.c,$(BUILD)/%.o,$(wildcard lib/$(1)/*.c)) $(BUILD)/libqs.a
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) -shared $$(QS_CFLAGS) $$(CFLAGS) $$(filter-out -pie,$$(QS_LDFLAGS)) $$(LDFLAGS) \
		$$(MODULE_DEFS) -Wl,--exclude-libs,ALL -o $$@ $$^ \
		$$(shell pkg-config --libs $$(LIBS_$(1))) $$(PKG_LIBS)
endef
$(foreach m,$(MODULES),$(eval $(call module_rule,$(m))))

# nodelete: jansson keeps pointers to functions of it (qs_secret_wipe_json).
$(PLUGIN): $(BUILD)/lib/plugin/plugin.o lib/plugin/plugin.map $(BUILD)/libqs.a
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(QS_CFLAGS) $(CFLAGS) $(filter-out -pie,$(QS_LDFLAGS)) $(LDFLAGS) \
		$(MODULE_DEFS) -Wl,-z,nodelete -Wl,--exclude-libs,ALL \
		-Wl,--version-script=lib/plugin/plugin.map -o $@ $< $(BUILD)/libqs.a $(PKG_LIBS)

token-plugin: $(PLUGIN) $(MODULE_SO)

$(UNIT_BIN): $(BUILD)/%: $(BUILD)/%.o $(UNIT_SHARED:%.c=$(BUILD)/%.o) $(BUILD)/libqs.a
	$(call say,LD,$@)
	$(Q)$(CC) $(QS_CFLAGS) $(CFLAGS) $(QS_LDFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka

# The fuzzers' library has objects of its own: clang's instrumentation is in them.
FUZZ_CFLAGS = -std=gnu17 -Ilib -D_FILE_OFFSET_BITS=64 -DQS_MODULE_DIR='"none"' -O1 -g -fno-sanitize-recover=all \
	$(PKG_CFLAGS) -MMD -MP
$(BUILD)/fuzz/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,FUZZCC,$<)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,address,undefined -c -o $@ $<

$(FUZZ_BIN): $(BUILD)/%: %.c $(LIB_SRC:%.c=$(BUILD)/fuzz/%.o)
	@mkdir -p $(@D)
	$(call say,FUZZ,$<)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $^ $(PKG_LIBS)

$(BUILD)/tests/unit/%.o: QS_CFLAGS += -DQS_SOURCE='"$(CURDIR)"'

# Unit tests load modules as the program does, from beside them.
$(BUILD)/tests/unit/modules:
	@mkdir -p $(@D)
	$(Q)ln -sfn ../../modules $@

-include $(BUILD)/lib/plugin/plugin.d $(LIB_OBJ:.o=.d) $(MODULE_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(UNIT_SRC:%.c=$(BUILD)/%.d)
-include $(LIB_SRC:%.c=$(BUILD)/fuzz/%.d)

# Everything that the tiers of `make check` need to be there.
tests: all token-plugin $(UNIT_BIN) $(BUILD)/tests/unit/modules $(FUZZ_BIN)

check:
	tests/install-deps build check guest
	$(MAKE) -j$(shell nproc) tests
	tests/run-checks $(TIERS)

lint:
	tests/install-deps build check lint
	tests/run-lint

# Ten minutes for each parser of foreign bytes; new inputs go to the build folder.
FUZZ_SECONDS ?= 600
fuzz:
	tests/install-deps build check
	$(MAKE) $(FUZZ_BIN)
	tests/fuzz/run $(FUZZ_SECONDS)

# Power cuts at every flush and in many more torn states than `make check` has time for.
POWER_STATES ?= 200
power:
	tests/install-deps build check guest
	$(MAKE) all
	QS_UTIL=$(abspath $(BUILD)/qs-util) QS_POWER_STATES=$(POWER_STATES) tests/power/run $(POWER)

bench:
	tests/install-deps build check guest bench
	$(MAKE) all
	tests/bench/run $(BENCH)

demo:
	tests/install-deps build guest
	$(MAKE) all
	tests/demo/run

# Committed, so that packagers need not run the program; `make check` compares them.
docs: $(BUILD)/qs-util
	man/generate $(BUILD)/qs-util

install: all
	install -D -m 0755 $(BUILD)/qs-util $(DESTDIR)$(SBINDIR)/qs-util
	install -d $(DESTDIR)$(MODULEDIR)
	install -m 0644 $(MODULE_SO) $(DESTDIR)$(MODULEDIR)
	install -d -m 0700 $(DESTDIR)$(SYSCONFDIR)/cryptconf
	test -e $(DESTDIR)$(SYSCONFDIR)/cryptconf/qs-util.conf || \
		install -m 0644 etc/qs-util.conf $(DESTDIR)$(SYSCONFDIR)/cryptconf/qs-util.conf
	install -D -m 0644 etc/qs-util.bash-completion $(DESTDIR)$(COMPLETIONDIR)/qs-util
	install -d $(DESTDIR)$(MANDIR)/man8
	install -m 0644 $(MAN8) $(DESTDIR)$(MANDIR)/man8
	install -D -m 0644 man/qs-util.conf.5 $(DESTDIR)$(MANDIR)/man5/qs-util.conf.5
	systemd/install '$(DESTDIR)' '$(PREFIX)' '$(SBINDIR)'
	initramfs/install '$(DESTDIR)' '$(PREFIX)' '$(SBINDIR)' '$(MODULEDIR)'

install-token-plugin: token-plugin
	install -D -m 0644 $(PLUGIN) $(DESTDIR)$(TOKENDIR)/$(notdir $(PLUGIN))
	test $(TOKEN_MODULES) = $(MODULEDIR) || ln -sfn $(MODULEDIR) $(DESTDIR)$(TOKEN_MODULES)

uninstall-token-plugin:
	rm -f $(DESTDIR)$(TOKENDIR)/$(notdir $(PLUGIN))
	! test -L $(DESTDIR)$(TOKEN_MODULES) || rm $(DESTDIR)$(TOKEN_MODULES)

# Keys, headers and the configuration stay: they belong to the disks, not to us.
uninstall:
	rm -f $(DESTDIR)$(SBINDIR)/qs-util $(DESTDIR)$(COMPLETIONDIR)/qs-util
	rm -f $(MODULES:%=$(DESTDIR)$(MODULEDIR)/%.so)
	! test -d $(DESTDIR)$(MODULEDIR) || rmdir --ignore-fail-on-non-empty $(DESTDIR)$(MODULEDIR)
	rm -f $(MAN8:man/%=$(DESTDIR)$(MANDIR)/man8/%) $(DESTDIR)$(MANDIR)/man5/qs-util.conf.5
	systemd/install --remove '$(DESTDIR)' '$(PREFIX)' '$(SBINDIR)'
	initramfs/install --remove '$(DESTDIR)' '$(PREFIX)' '$(SBINDIR)' '$(MODULEDIR)'

clean:
	rm -rf $(BUILD)

help:
	@echo 'make all        build/qs-util and build/modules'
	@echo 'make check      all tests: unit, faults, guest, boot (TIERS="unit fault" chooses)'
	@echo 'make lint       clang-format, clang-tidy, cppcheck, shellcheck, warnings as errors'
	@echo 'make demo       the life of four disks in a virtual machine, explained'
	@echo 'make bench      our times beside those of stock tools (BENCH="--only G1,G4")'
	@echo 'make fuzz       each fuzzer for FUZZ_SECONDS (600)'
	@echo 'make power      power cuts in POWER_STATES (200) torn states of each command'
	@echo 'make docs       write the manual pages and the completion from the command table'
	@echo 'make install    to DESTDIR and PREFIX (/usr/local); make uninstall takes it back'
	@echo 'make install-token-plugin   to TOKENDIR: cryptsetup and systemd-cryptsetup open devices'
	@echo '                by the keystore then, too; make uninstall-token-plugin takes it back'
	@echo 'make clean      remove build/'
	@echo
	@echo 'Variables: SANITIZE=address,undefined  WERROR=1  V=1  CC=clang  CFLAGS=  BUILD='

FORCE:
.PHONY: all token-plugin install-token-plugin uninstall-token-plugin tests check lint fuzz power bench demo docs install uninstall clean help FORCE
