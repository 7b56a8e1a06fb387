# make demo     build, and show the main job in network namespaces (root)
# make test     everything; as root with the tests in network namespaces
# make bench    speed and memory, one line per figure (root)
# make lint     formatting, vet, staticcheck, module file, other systems
# make leak-doc docs/leak-tests.md, from the tests
# make build    ./nws-vpn, static
# make install  into $(PREFIX)/bin, with systemd's units in $(PREFIX)/lib

GO      ?= go
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# How long each fuzz target runs, and how long the tests of one package may.
FUZZTIME ?= 3s
TIMEOUT  ?= 20m

# systemd looks for units there for the prefixes /usr and /usr/local.
UNITDIR ?= $(PREFIX)/lib/systemd/system
UNITS    = nws-vpn.service nws-vpn-lockdown.service nws-vpn-exit.service nws-vpn-relay.service

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Namespaces need root; sudo is asked for when it is there.
SUDO = $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: leak-doc build demo test unit fuzz bench lint tools install uninstall clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o nws-vpn ./cmd/nws-vpn

demo: build tools
	$(SUDO) ./nws-vpn demo

# What the demo and the tests use of the system. Where it cannot be installed,
# the demo uses a prober of its own and the tests say what they skip.
tools:
	@missing=; for t in curl:curl dig:dnsutils nc:netcat-openbsd ping:iputils-ping openssl:openssl dbus-daemon:dbus; do \
		command -v $${t%%:*} >/dev/null || missing="$$missing $${t##*:}"; done; \
	[ -z "$$missing" ] || { echo "installing$$missing"; \
		$(SUDO) apt-get install -y -q $$missing || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q $$missing; } || \
		echo "could not install$$missing: going on without"; }

test: tools unit fuzz

# The race detector needs cgo and a C compiler.
unit:
	@if command -v $${CC:-gcc} >/dev/null && [ "$$(CGO_ENABLED=1 $(GO) env CGO_ENABLED)" = 1 ]; then \
		echo "tests, with the race detector"; CGO_ENABLED=1 $(GO) run ./test/run -race -shuffle=on -timeout $(TIMEOUT) ./...; \
	else \
		echo "tests, without the race detector: no C compiler"; CGO_ENABLED=0 $(GO) run ./test/run -shuffle=on -timeout $(TIMEOUT) ./...; \
	fi

# Every fuzz target there is, for a few seconds each. On a busy machine Go calls
# it a failure when the time is up at the wrong moment; that is tried again.
fuzz:
	@set -e; $(GO) list ./... | while read -r pkg; do \
		list=$$($(GO) test -list '^Fuzz' $$pkg); \
		for target in $$(echo "$$list" | grep '^Fuzz' || true); do \
			echo "fuzz $$pkg $$target"; \
			run() { $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg 2>&1; }; \
			out=$$(run) && continue; \
			case "$$out" in *"Failing input"*) ;; *"context deadline exceeded"*) out=$$(run) && continue;; esac; \
			echo "$$out"; exit 1; \
		done; \
	done

# The list of leak checks, from the tests.
leak-doc:
	$(GO) run ./test/leakdoc . docs/leak-tests.md

bench: build
	$(GO) build -o bin/bench ./test/bench
	$(SUDO) ./bin/bench -binary ./nws-vpn

lint:
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	GOOS=darwin CGO_ENABLED=0 $(GO) vet ./...
	GOOS=windows CGO_ENABLED=0 $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) test ./test/imports

install: build
	install -D -m 0755 nws-vpn $(DESTDIR)$(PREFIX)/bin/nws-vpn
	@for unit in $(UNITS); do \
		echo "install $(DESTDIR)$(UNITDIR)/$$unit"; \
		install -d $(DESTDIR)$(UNITDIR) && \
		sed 's,/usr/local/bin,$(PREFIX)/bin,g' platform/systemd/$$unit >$(DESTDIR)$(UNITDIR)/$$unit && \
		chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; \
	done

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/nws-vpn $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))

clean:
	rm -rf nws-vpn bin
