package main

import (
	"context"
	"log/slog"
	"sync"
)

// attemptLog is a log of what makes one attempt to reach the exit. What fails in
// it is told by the error of the attempt; so records that have one are held back,
// until it is known how the attempt went. At debug level everything is told at
// once.
type attemptLog struct {
	slog.Handler
	held *heldRecords
}

// heldRecords are shared by all logs that derive from one.
type heldRecords struct {
	mu      sync.Mutex
	holding bool
	list    []func()
}

// maxHeld bounds what is held back.
const maxHeld = 64

// holdBack is log for an attempt. Then tell must be called: with true what was held
// back is told, and what follows; with false it is dropped, like all of its kind
// that follows.
func holdBack(log *slog.Logger) (_ *slog.Logger, tell func(all bool)) {
	held := &heldRecords{holding: true}
	return slog.New(attemptLog{log.Handler(), held}), held.tell
}

func (h *heldRecords) tell(all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.list
	h.holding, h.list = !all, nil
	if all {
		for _, write := range list {
			write()
		}
	}
}

func (l attemptLog) Handle(ctx context.Context, r slog.Record) error {
	failure := false
	r.Attrs(func(a slog.Attr) bool {
		failure = a.Key == "err"
		return !failure
	})
	if failure && r.Level < slog.LevelError && !l.Handler.Enabled(ctx, slog.LevelDebug) {
		l.held.mu.Lock()
		defer l.held.mu.Unlock()
		if l.held.holding {
			if len(l.held.list) < maxHeld {
				r := r.Clone()
				l.held.list = append(l.held.list, func() { l.Handler.Handle(context.WithoutCancel(ctx), r) })
			}
			return nil
		}
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs is a slog.Handler's.
func (l attemptLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return attemptLog{l.Handler.WithAttrs(attrs), l.held}
}

// WithGroup is a slog.Handler's.
func (l attemptLog) WithGroup(name string) slog.Handler {
	return attemptLog{l.Handler.WithGroup(name), l.held}
}
