package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// finding is a place in the tests that speaks of a check.
type finding struct {
	number int
	open   bool
	what   string
	test   string // package and function; "" when open
}

// document makes the whole text from the tests below root.
func document(root fs.FS) ([]byte, error) {
	var found []finding
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, "_test.go") {
			if err == nil && entry.IsDir() && strings.HasPrefix(path.Base(name), ".") && name != "." {
				return fs.SkipDir
			}
			return err
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		in, err := findings(name, source)
		found = append(found, in...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return format(found)
}

var marker = regexp.MustCompile(`(?m)^leak check (\d+)( is open)?: (.+)$`)

// findings reads one file of tests.
func findings(name string, source []byte) ([]finding, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, group := range file.Comments {
		for _, m := range marker.FindAllStringSubmatch(group.Text(), -1) {
			n, _ := strconv.Atoi(m[1]) // digits
			f := finding{number: n, open: m[2] != "", what: m[3]}
			if f.open {
				found = append(found, f)
				continue
			}
			if f.test = testBehind(file, group); f.test == "" {
				return nil, fmt.Errorf("%s: the mark of check %d is not above a test", name, n)
			}
			f.test = path.Dir(name) + " " + f.test
			found = append(found, f)
		}
	}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(fn.Name.Name, "Test") {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if f, ok := checkCall(n); ok {
				f.test = path.Dir(name) + " " + fn.Name.Name
				found = append(found, f)
			}
			return true
		})
	}
	return found, nil
}

// testBehind is the test function whose comment a group is.
func testBehind(file *ast.File, group *ast.CommentGroup) string {
	for _, decl := range file.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Doc == group && strings.HasPrefix(fn.Name.Name, "Test") {
			return fn.Name.Name
		}
	}
	return ""
}

// checkCall reads x.check(7, "what", …). What is put together at run time is
// shown by its constant parts.
func checkCall(n ast.Node) (finding, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 3 {
		return finding{}, false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	number, isNumber := call.Args[0].(*ast.BasicLit)
	if !ok || !isNumber || method.Sel.Name != "check" || number.Kind != token.INT {
		return finding{}, false
	}
	at, err := strconv.Atoi(number.Value)
	return finding{number: at, what: constantText(call.Args[1])}, err == nil
}

func constantText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value) // the parser has read it
		return text
	case *ast.BinaryExpr:
		return constantText(e.X) + constantText(e.Y)
	}
	return "…"
}

const head = `# Leak checks

Made by "make leak-doc" from the tests; do not edit.

The judge is a sniffer on the client's uplinks: from "nws-vpn up" until
"nws-vpn down", only frames of TCP to the relays' addresses and ports (and to port 80
there, where a captive portal is looked for while no relay answers), DHCP, ARP and
neighbour discovery may leave. Each probe is first sent with the VPN off, and
must be seen then. All of it runs in network namespaces, as root, by "make test".

What no check can show: a program with CAP_NET_RAW that writes Ethernet frames
itself (AF_PACKET) gets past every filter of IP; and root is the tunnel's own
user here, whose mark is believed.
`

// format writes the list.
func format(found []finding) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(head)
	topic := ""
	for _, f := range found {
		if !slices.ContainsFunc(checks, func(c check) bool { return c.number == f.number }) {
			return nil, fmt.Errorf("%s speaks of check %d, which there is not", f.test, f.number)
		}
	}
	for _, c := range checks {
		if c.topic != topic {
			topic = c.topic
			fmt.Fprintf(&b, "\n## %s\n", topic)
		}
		var tested, open []string
		for _, f := range found {
			switch {
			case f.number != c.number:
			case f.open:
				open = append(open, "- open: "+f.what+"\n")
			default:
				tested = append(tested, "- "+f.what+" (`"+f.test+"`)\n")
			}
		}
		slices.Sort(tested)
		slices.Sort(open)
		state := "tested"
		switch {
		case len(tested) == 0:
			state = "not tested"
		case len(open) > 0:
			state = "tested in part"
		}
		fmt.Fprintf(&b, "\n%d. **%s**: %s\n\n%s", c.number, c.title, state, strings.Join(slices.Compact(append(tested, open...)), ""))
	}
	return b.Bytes(), nil
}
