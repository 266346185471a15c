# mod_pgpool.  make | run | test | bench | soak | install [DESTDIR=] | clean
#
#   APXS=/path/apxs    builds for that httpd
#   PG_CONFIG=/path/pg_config
#                      builds and tests with that PostgreSQL; the modules then find its libpq by
#                      themselves (rpath)
#   PORT=8080          is where `make run` listens
#   SANITIZE=thread    (or address) builds and tests an instrumented variant beside the plain one;
#                      CC has to be a gcc, whose runtime can be loaded before httpd
#
# Plain make fed by the httpd's own apxs, without libtool: that gives -j, header dependencies
# and sanitizer builds.

comma     := ,
ask        = $(shell $(1) 2>/dev/null)
APXS      := $(or $(APXS),$(call ask,command -v apxs),$(call ask,command -v apxs2))
PG_CONFIG ?= pg_config
BUILD     ?= .build$(patsubst thread,/tsan,$(SANITIZE:address=/asan))
CFLAGS    ?= -O2 -g

httpd_include := $(call ask,$(APXS) -q INCLUDEDIR)
httpd_modules := $(call ask,$(APXS) -q LIBEXECDIR)
apr_include   := $(call ask,$(APXS) -q APR_INCLUDEDIR)
apr_cppflags  := $(call ask,$(APXS) -q EXTRA_CPPFLAGS)
apr_libs      := $(call ask,$(call ask,$(APXS) -q APR_CONFIG) --link-ld)
pq_include    := $(call ask,$(PG_CONFIG) --includedir)
pq_libdir     := $(call ask,$(PG_CONFIG) --libdir)
pq_libs       := -L$(pq_libdir) $(if $(filter-out pg_config,$(PG_CONFIG)),-Wl$(comma)-rpath=$(pq_libdir)) -lpq
check_cflags  := $(call ask,pkg-config --cflags check)
check_libs    := $(call ask,pkg-config --libs check)

# httpd's idiom has hooks with parameters that go unused and tables whose last fields are left out.
flags := -std=gnu11 -pthread -fPIC -fvisibility=hidden -Wall -Wextra -Wmissing-prototypes \
         -Wno-unused-parameter -Wno-missing-field-initializers \
         $(SANITIZE:%=-fsanitize=% -fno-omit-frame-pointer -DPGP_CHECKED)

objects     = $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(1)))
core       := $(BUILD)/libpgpcore.a
modules    := $(addprefix $(BUILD)/mod_pgpool,.so _query.so _dbd.so)
units      := $(patsubst t/unit/%.c,$(BUILD)/t/%,$(wildcard t/unit/test_*.c))
fuzzers    := $(patsubst t/fuzz/%.c,$(BUILD)/t/%,$(wildcard t/fuzz/fuzz_*.c))
fuzz_main  := $(BUILD)/t/fuzz/replay.o
unit_share := $(filter-out $(BUILD)/t/unit/test_%,$(call objects,t/unit/*.c))
helpers    := $(patsubst %.c,$(BUILD)/t/%.so,$(notdir $(wildcard t/lib/*.c t/bench/mod_*.c)))

ifneq ($(SANITIZE),)
ifneq ($(findstring clang,$(call ask,$(CC) --version)),)
$(error SANITIZE= needs a gcc)
endif
endif

export APXS PG_CONFIG
export PGPOOL_BUILD = $(BUILD)
export PGPOOL_SANITIZE = $(SANITIZE)
export PGPOOL_CC = $(CC)

.PHONY: all tests run test bench soak in-run in-test in-bench in-soak install clean
.DELETE_ON_ERROR:
.SECONDARY:

all: $(modules)
# t/61-cancel-race.t links the objects of t/race itself, in two ways.
tests: $(modules) $(units) $(fuzzers) $(helpers) $(call objects,t/race/*.c)

# t/setup may install the tools that were asked above, so a second make asks them again.
run test bench soak:
	t/setup
	@$(MAKE) --no-print-directory in-$@

in-run: all
	t/unprivileged t/demo
in-test: tests
	t/unprivileged t/run-tests
in-bench: tests
	t/unprivileged t/bench/run
in-soak: tests
	t/unprivileged t/run-tests --verbose t/soak

install: all
	install -D -m 644 -t $(DESTDIR)$(httpd_include) mod_pgpool/mod_pgpool.h
	install -D -m 644 -t $(DESTDIR)$(httpd_modules) $(modules)

clean:
	rm -rf .build

# The core is built with APR and libpq alone: to include a header of httpd is an error there.
core_includes := -I$(apr_include) -I$(pq_include)
includes       = $(core_includes) -Imod_pgpool -I$(httpd_include)
$(BUILD)/mod_pgpool/core/%.o: includes = $(core_includes)
$(BUILD)/t/unit/%.o: includes = $(core_includes) -Imod_pgpool/core $(check_cflags)
$(BUILD)/t/race/%.o $(BUILD)/t/fuzz/%.o: includes = $(core_includes) -Imod_pgpool/core

$(BUILD)/%.o: %.c Makefile
	$(if $(httpd_include),,$(error apxs is not here: run t/setup, or give APXS=))
	@mkdir -p $(@D)
	$(CC) $(flags) $(CPPFLAGS) $(apr_cppflags) $(includes) $(CFLAGS) -MMD -MP -c -o $@ $<

$(core): $(call objects,mod_pgpool/core/*.c)
	@rm -f $@
	$(AR) rcs $@ $^

# Without nodelete the address sanitizer cannot name the frames of a module that was unloaded.
nodelete-address := -Wl,-z,nodelete
link_module = $(CC) -shared $(flags) $(CFLAGS) $(LDFLAGS) $(nodelete-$(SANITIZE)) -o $@ $^ $(pq_libs) $(libs)

query_objects := $(call objects,mod_pgpool/mod_pgpool_query*.c)
dbd_objects   := $(call objects,mod_pgpool/mod_pgpool_dbd*.c)
glue_objects  := $(filter-out $(query_objects) $(dbd_objects),$(call objects,mod_pgpool/mod_pgpool*.c))
$(BUILD)/mod_pgpool_query.so: $(query_objects) $(core)
	$(link_module)
$(BUILD)/mod_pgpool_dbd.so: $(dbd_objects)
	$(link_module)
$(BUILD)/mod_pgpool.so: libs = -ljansson
$(BUILD)/mod_pgpool.so: $(glue_objects) $(core)
	$(link_module)
$(BUILD)/t/%.so: $(BUILD)/t/lib/%.o
	$(link_module)
# libpq's own libraries must not come before httpd's.
$(BUILD)/t/preload_%.so: $(BUILD)/t/lib/preload_%.o
	$(CC) -shared $(flags) $(CFLAGS) $(LDFLAGS) -o $@ $^
$(BUILD)/t/mod_%.so: $(BUILD)/t/bench/mod_%.o
	$(link_module)

$(units): $(BUILD)/t/%: $(BUILD)/t/unit/%.o $(unit_share) $(core)
	$(CC) $(flags) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(check_libs) $(apr_libs) $(pq_libs)

$(BUILD)/t/test_query_sql $(BUILD)/t/fuzz_sql: $(BUILD)/mod_pgpool/mod_pgpool_query_sql.o
$(BUILD)/t/fuzz_form: $(BUILD)/mod_pgpool/mod_pgpool_query_form.o

$(fuzzers): $(BUILD)/t/%: $(BUILD)/t/fuzz/%.o $(fuzz_main) $(core)
	$(CC) $(flags) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(apr_libs) $(pq_libs)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
