// Command gvisor measures gVisor's own page allocator (pkg/sentry/pgalloc of
// the public Go module) with its defaults, so that its figures can stand beside
// ours in the same run. Each sub-command prints one JSON object on one line.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

type command struct {
	name string
	help string
	run  func(args []string) (result, error)
}

var commands = []command{
	{"alloc", "free + allocate pairs on random live ranges of 1 to 64 pages", runAlloc},
	{"refs", "IncRef + DecRef pairs on random live ranges", runRefs},
	{"view", "MapInternal of random live ranges", runView},
	{"big", "allocate and free one very large range", runBig},
	{"mkimage", "write a checkpoint of stamped pages and time the save", runMkimage},
	{"mkfile", "write a checkpoint of a random file and what must be found in it", runMkfile},
	{"mktrace", "write random operations with gVisor's answers", runMktrace},
	{"mkkernel", "write a checkpoint of several MemoryFiles as a kernel does", runMkkernel},
	{"checkkernel", "load such a checkpoint as a kernel does, and compare it with its kernel.json", runCheckKernel},
	{"load", "load a checkpoint in the background, awaiting random pages", runLoad},
	{"check", "load a checkpoint and compare it with an expected.json", runCheck},
}

// result is what a sub-command prints. The common fields are added by main.
type result map[string]any

func main() {
	// gVisor logs at Info to stderr; stdout is for results only.
	log.SetLevel(log.Warning)
	if len(os.Args) >= 2 {
		for _, c := range commands {
			if c.name == os.Args[1] {
				os.Exit(execute(c, os.Args[2:]))
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: gvisor COMMAND [flags]; gvisor COMMAND -h lists the flags")
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-8s %s\n", c.name, c.help)
	}
	os.Exit(2)
}

func execute(c command, args []string) int {
	// Inc and Dec of committed memory go through this global.
	if err := usage.Init(); err != nil {
		fmt.Fprintf(os.Stderr, "gvisor %s: %v\n", c.name, err)
		return 1
	}
	res, err := c.run(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "gvisor %s: %v\n", c.name, err)
		if res == nil {
			return 1
		}
	}
	res["peer"] = "gvisor"
	res["command"] = c.name
	res["go"] = runtime.Version()
	res["gomaxprocs"] = runtime.GOMAXPROCS(0)
	res["gvisor"] = moduleVersion("gvisor.dev/gvisor")
	line, jerr := json.Marshal(res)
	if jerr != nil {
		fmt.Fprintf(os.Stderr, "gvisor %s: %v\n", c.name, jerr)
		return 1
	}
	fmt.Println(string(line))
	if err != nil {
		return 1
	}
	return 0
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dep := range info.Deps {
		if dep.Path == path {
			if dep.Replace != nil {
				return dep.Replace.Version + " (replaced)"
			}
			return dep.Version
		}
	}
	return "unknown"
}

// parse parses flags and reports them as they took effect.
func parse(fs *flag.FlagSet, args []string) map[string]string {
	fs.Parse(args) // flag.ExitOnError
	if fs.NArg() != 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument %q\n", fs.Arg(0))
		os.Exit(2)
	}
	effective := make(map[string]string)
	fs.VisitAll(func(f *flag.Flag) { effective[f.Name] = f.Value.String() })
	return effective
}
