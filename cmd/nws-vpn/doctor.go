package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/config"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/control"
	"github.com/nws-vpn/nws-vpn/cmd/nws-vpn/internal/doctor"
	"github.com/nws-vpn/nws-vpn/nostrlink/envelope"
	"github.com/nws-vpn/nws-vpn/nostrlink/name"
	"github.com/nws-vpn/nws-vpn/platform"
)

// doctorOptions are what `nws-vpn doctor` looks at and where it writes.
type doctorOptions struct {
	exit   string
	relays []string
	target string
	json   bool
	bundle string
}

func doctorCommand() *cobra.Command {
	var (
		flags configFlags
		dirs  stateDirs
		opts  doctorOptions
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what does not work, and what to do",
		Long: `Tries every hop from this machine to the internet behind the exit, and names
the one that fails and what to do. Changes nothing. It works with and without a
running "nws-vpn up", which goes on undisturbed.

The exit is asked for the address of the target, and connects to it once.
Exits with 1 when something fails.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDoctor(cmd.Context(), cmd.OutOrStdout(), flags.file, dirs, opts)
		},
	}
	cmd.Flags().StringVar(&flags.file, "config", "", "configuration file (default "+config.Path()+", if it exists)")
	dirs.add(cmd)
	cmd.Flags().StringVar(&opts.exit, "exit", "", "the exit, as for up (default: the one in use, or that of the configuration)")
	cmd.Flags().StringSliceVar(&opts.relays, "relay", nil, "relay URL, as for up; may be given more than once")
	cmd.Flags().StringVar(&opts.target, "target", "example.com:443", "what the exit is to connect to, host:port")
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON with a schema number")
	cmd.Flags().StringVar(&opts.bundle, "bundle", "", "also write a file (.tar.gz) to send to somebody who helps, without keys, names and addresses of yours")
	return cmd
}

// doctorTimeout bounds all of the doctor's work.
const doctorTimeout = 45 * time.Second

func runDoctor(ctx context.Context, out io.Writer, file string, dirs stateDirs, opts doctorOptions) error {
	if _, _, err := net.SplitHostPort(opts.target); err != nil {
		return fmt.Errorf("--target %q: want host:port", opts.target)
	}
	if err := config.CheckRelays(opts.relays); err != nil {
		return fmt.Errorf("--relay: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	e := newExamination(ctx, file, dirs, opts)
	e.examine(ctx)
	report := doctor.Judge(&e.found)
	var err error
	if opts.json {
		err = writeJSON(out, report)
	} else {
		err = report.Write(out)
	}
	if err == nil && opts.bundle != "" {
		err = e.writeBundle(opts.bundle, report)
	}
	if err == nil && report.Failing != nil {
		err = exitStatus(1)
	}
	return err
}

// examination is the doctor at work.
type examination struct {
	opts   doctorOptions
	dirs   stateDirs
	file   string
	cfg    *config.Config
	status []byte // as the running tunnel sent it
	now    runningTunnel
	seen   *platform.Inspection
	dialer *net.Dialer
	found  doctor.Found

	credentials credentialsFunc
	relayKey    envelope.SecretKey // who we are to relays that ask, zero: nobody
	members     []string           // the relays that may know: those that the user has named
}

// runningTunnel is what of a status matters here. It is decoded by itself, so
// that the doctor understands what it can of any version's.
type runningTunnel struct {
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Blocked   string    `json:"blocked_because"`
	LastError string    `json:"last_error"`
	Exit      string    `json:"exit"`
	PID       int       `json:"pid"`

	Refused map[string]uint64 `json:"refused"`
	Split   splitStatus       `json:"split"`
	Relays  []struct {
		URL string `json:"url"`
	} `json:"relays"`
}

// newExamination looks at this machine.
func newExamination(ctx context.Context, file string, dirs stateDirs, opts doctorOptions) *examination {
	e := &examination{opts: opts, dirs: dirs, file: file}
	e.found = doctor.Found{Version: buildVersion(), System: runtime.GOOS + "/" + runtime.GOARCH, Time: time.Now()}
	e.readConfig()
	e.askTunnel(ctx)
	e.seen = platform.Inspect(dirs.lasting())
	t := &e.found.Tunnel
	t.Closed = slices.ContainsFunc(e.seen.Rules, func(r platform.RuleState) bool { return r.Ours })
	e.found.Machine = doctor.Machine(platform.Abilities(), e.seen, doctor.Asker{
		KillSwitch: e.cfg.Up.KillSwitch != config.KillSwitches[0], Running: t.Running || t.Denied,
		Plain: runtime.GOOS == "linux" && os.Geteuid() != 0,
	})
	switch {
	case t.Denied:
		e.found.Stopped = errors.New("a tunnel may be up, and only its user gets past it: run this as root")
	case t.Running && os.Geteuid() >= 0 && e.seen.Owner != uint32(os.Geteuid()):
		e.found.Stopped = fmt.Errorf("the tunnel that is up runs as user %d, and only that user gets past it: run this as that user", e.seen.Owner)
	case os.Geteuid() == 0:
		e.dialer = bypassDialer(e.cfg.Up.Mark, func() []netip.Addr { return e.seen.Resolver.Uplink })
	default:
		e.dialer = &net.Dialer{}
	}
	return e
}

func (e *examination) readConfig() {
	s := &e.found.Config
	s.Name = "configuration"
	e.cfg, s.Err = config.Load(e.file)
	switch {
	case s.Err != nil:
		e.cfg = config.Default()
	case e.file != "":
		s.Found = e.file
	default:
		s.Found = "the defaults, and " + config.Path() + " if it exists"
	}
	if err := overrideExit(&e.cfg.Up, e.opts.exit, e.opts.relays, ""); err != nil && s.Err == nil {
		s.Err = err
	}
	var err error
	// Whoever may not read the key asks as a stranger.
	if e.relayKey, err = relayKey(&e.cfg.Up); err != nil && s.Err == nil && !errors.Is(err, fs.ErrPermission) {
		s.Err = err
	}
	e.members = append([]string{}, e.cfg.Up.Relays...)
}

// meetJoined takes up the exits that were joined, once it is known which exit it
// is about.
func (e *examination) meetJoined() error {
	flags := configFlags{file: e.file}
	var err error
	e.credentials, err = dialAs(e.cfg, flags.joinedDir(), len(e.opts.relays) > 0)
	return err
}

func (e *examination) askTunnel(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	t := &e.found.Tunnel
	var err error
	e.status, err = control.Status(ctx, e.dirs.run())
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return
	case errors.Is(err, fs.ErrPermission) || err != nil && os.Geteuid() != 0:
		t.Denied = true
		return
	case err == nil:
		err = json.Unmarshal(e.status, &e.now)
	}
	t.Running = true
	t.State, t.Since, t.Problem = e.now.State, time.Since(e.now.Since), e.now.LastError
	for _, r := range mostRefused(e.now.Refused) {
		t.Refused = append(t.Refused, oneLine(r))
	}
	if e.now.Blocked != "" {
		t.Problem = e.now.Blocked
	}
	if err != nil {
		t.State, t.Since, t.Problem = "unknown", 0, err.Error()
	}
	if e.cfg.Up.Exit == "" || e.cfg.Up.Exit == config.AutoExit && e.now.Exit != "" {
		e.cfg.Up.Exit = e.now.Exit
	}
	for _, r := range e.now.Relays {
		if strings.HasPrefix(r.URL, "ws") && len(e.opts.relays) == 0 && !slices.Contains(e.cfg.Up.Relays, r.URL) {
			e.cfg.Up.Relays = append(e.cfg.Up.Relays, r.URL)
		}
	}
}

// maxExamined bounds the relays that are looked at, all of them at once.
const maxExamined = 16

// examine tries the hops beyond this machine.
func (e *examination) examine(ctx context.Context) {
	joinedErr := e.meetJoined()
	book, err := name.NewBook(e.cfg.Names)
	if err != nil {
		book, _ = name.NewBook(nil) // the configuration's line says it
	}
	exit, relays, err := chooseExit(e.cfg.Up.Exit, e.cfg.Up.Relays, book)
	if err == nil {
		err = joinedErr
	}
	e.found.Exit.Name = e.cfg.Up.Exit
	choice := doctor.Step{Name: doctor.HopChoice, Err: err}
	if err == nil && e.cfg.Up.Exit != config.AutoExit {
		e.found.Exit.Name, choice.Found = exit.NPub(), e.cfg.Up.Exit
	}
	e.found.Exit.Steps = []doctor.Step{choice}
	relays = slices.Compact(relays[:min(len(relays), maxExamined)])
	e.examineRelays(ctx, relays)
	if err == nil && e.found.Stopped == nil {
		e.examineExit(ctx, exit)
	}
}

func (e *examination) examineRelays(ctx context.Context, relays []string) {
	e.found.Relays = make([]doctor.Relay, len(relays))
	var examining sync.WaitGroup
	for i, url := range relays {
		e.found.Relays[i].URL = url
		if e.found.Stopped == nil {
			examining.Go(func() {
				r := relayExamination{dialer: e.dialer, found: &e.found.Relays[i]}
				if slices.Contains(e.members, url) {
					r.key = e.relayKey
				}
				r.examine(ctx)
			})
		}
	}
	examining.Wait()
}

// writeBundle packs what helps somebody else to find the fault, without what
// the user does not want to show.
func (e *examination) writeBundle(path string, report *doctor.Report) error {
	r := doctor.NewRedactor(doctor.Identity())
	var text strings.Builder
	if err := report.Write(&text); err != nil {
		return err
	}
	files := []doctor.File{{Name: "report.txt", Text: text.String()}}
	for _, f := range []struct {
		name  string
		value any
	}{{"report.json", report}, {"network.json", e.seen}} {
		b, err := json.MarshalIndent(f.value, "", "  ")
		if err != nil {
			return fmt.Errorf("doctor: bundle: %w", err)
		}
		files = append(files, doctor.File{Name: f.name, Text: string(b)})
	}
	files = append(files, doctor.File{Name: "status.json", Text: string(e.status)})
	file := e.file
	if file == "" {
		file = config.Path()
	}
	files = append(files,
		doctor.ReadTail("nws.toml", file),
		doctor.ReadTail(logName, e.dirs.run()+string(os.PathSeparator)+logName))
	for i := range files {
		files[i].Text = r.Redact(files[i].Text)
	}
	return doctor.WriteBundle(path, files)
}
