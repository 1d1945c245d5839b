// Renders the chart as `helm template` does, again and again in one process: a line of JSON in, a line of JSON out. The
// tests of the chart render it hundreds of times, and most of the time of a run of helm is its start.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/cli/values"
	"helm.sh/helm/v3/pkg/getter"
	"helm.sh/helm/v3/pkg/ignore"
	"sigs.k8s.io/yaml"
)

// Request asks for the chart with some values, or for documents of YAML as JSON.
type Request struct {
	Values      json.RawMessage `json:"values"`
	Files       []string        `json:"files"`
	APIVersions []string        `json:"api_versions"`
	KubeVersion string          `json:"kube_version"`
	Release     string          `json:"release"`
	Namespace   string          `json:"namespace"`
	Documents   []string        `json:"documents"`
}

// Answer is what was rendered, or why not.
type Answer struct {
	Text    string            `json:"text"`
	Error   string            `json:"error"`
	Objects []json.RawMessage `json:"objects"`
}

func main() {
	log.SetOutput(os.Stderr)
	files, err := chartFiles(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var request Request
		if err := json.Unmarshal(line, &request); err != nil {
			log.Fatal(err)
		}
		if err := answers.Encode(answer(request, files)); err != nil {
			log.Fatal(err)
		}
	}
}

func answer(request Request, files []*loader.BufferedFile) Answer {
	if request.Documents != nil {
		objects, err := toJSON(request.Documents)
		return Answer{Objects: objects, Error: text(err)}
	}
	rendered, err := render(request, files)
	return Answer{Text: rendered, Error: text(err)}
}

// render returns the manifests, and behind them the hooks.
func render(request Request, files []*loader.BufferedFile) (string, error) {
	chart, err := loader.LoadFiles(files)
	if err != nil {
		return "", err
	}
	version, err := chartutil.ParseKubeVersion(request.KubeVersion)
	if err != nil {
		return "", err
	}
	given, err := merged(request)
	if err != nil {
		return "", err
	}
	install := action.NewInstall(&action.Configuration{Log: func(string, ...any) {}})
	install.DryRun, install.ClientOnly, install.Replace = true, true, true
	install.ReleaseName, install.Namespace = request.Release, request.Namespace
	install.KubeVersion, install.APIVersions = version, request.APIVersions
	release, err := install.Run(chart, given)
	if err != nil {
		return "", err
	}
	var whole strings.Builder
	fmt.Fprintln(&whole, strings.TrimSpace(release.Manifest))
	for _, hook := range release.Hooks {
		fmt.Fprintf(&whole, "---\n# Source: %s\n%s\n", hook.Path, hook.Manifest)
	}
	return whole.String(), nil
}

// merged returns the values as the command line reads them: from files, the later over the earlier.
func merged(request Request) (map[string]any, error) {
	file, err := os.CreateTemp("", "values-*.json")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := file.Write(request.Values); err != nil {
		return nil, err
	}
	files := append(request.Files, file.Name())
	return (&values.Options{ValueFiles: files}).MergeValues(getter.Providers{})
}

// chartFiles reads the chart once, without what .helmignore names.
func chartFiles(root string) ([]*loader.BufferedFile, error) {
	rules, err := ignore.ParseFile(filepath.Join(root, ignore.HelmIgnore))
	if err != nil {
		return nil, err
	}
	var files []*loader.BufferedFile
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case rules.Ignore(name, info) && entry.IsDir():
			return filepath.SkipDir
		case rules.Ignore(name, info) || entry.IsDir():
			return nil
		}
		data, err := os.ReadFile(path)
		files = append(files, &loader.BufferedFile{Name: filepath.ToSlash(name), Data: data})
		return err
	})
	return files, err
}

// toJSON returns each document as JSON; null if it is empty.
func toJSON(documents []string) ([]json.RawMessage, error) {
	objects := []json.RawMessage{}
	for _, document := range documents {
		object, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return "Error: " + err.Error()
}
