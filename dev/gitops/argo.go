package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

// customizations is the data of argocd-cm.
type customizations map[string]string

// argoAnswer has no health for a kind without a health script, as in Argo CD.
type argoAnswer struct {
	Status  string `json:"status"`
	Message string `json:"message"`
	// Actions that are offered -> what they make of the object.
	Actions map[string]map[string]any `json:"actions"`
}

// actions is the value of a key resource.customizations.actions.GROUP_KIND.
type actions struct {
	Discovery   string `json:"discovery.lua"`
	Definitions []struct {
		Name   string `json:"name"`
		Action string `json:"action.lua"`
	} `json:"definitions"`
}

func readCustomizations(path string) (customizations, error) {
	var configMap struct {
		Data customizations `json:"data"`
	}
	err := readYAML(path, &configMap)
	return configMap.Data, err
}

func (c customizations) ask(object *unstructured.Unstructured) (argoAnswer, error) {
	var told argoAnswer
	kind := object.GroupVersionKind()
	suffix := kind.Group + "_" + kind.Kind
	if script, ok := c["resource.customizations.health."+suffix]; ok {
		if err := runLua(object, script, &told); err != nil {
			return told, fmt.Errorf("health: %w", err)
		}
	}
	var all actions
	if err := yaml.UnmarshalStrict([]byte(c["resource.customizations.actions."+suffix]), &all); err != nil {
		return told, err
	}
	var err error
	told.Actions, err = all.run(object)
	return told, err
}

// run does every action that discovery offers, each on the object as it is.
func (a actions) run(object *unstructured.Unstructured) (map[string]map[string]any, error) {
	done := map[string]map[string]any{}
	if a.Discovery == "" {
		return done, nil
	}
	offered := map[string]struct {
		Disabled bool `json:"disabled"`
	}{}
	if err := runLua(object, a.Discovery, &offered); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	for _, definition := range a.Definitions {
		if action, ok := offered[definition.Name]; !ok || action.Disabled {
			continue
		}
		var changed map[string]any
		if err := runLua(object, definition.Action, &changed); err != nil {
			return nil, fmt.Errorf("action %s: %w", definition.Name, err)
		}
		done[definition.Name] = mended(changed, object.Object)
	}
	return done, nil
}

// mended is Argo CD's cleanReturnedObj for objects in objects: Lua can't tell an empty one from an empty list.
func mended(changed, former map[string]any) map[string]any {
	for key, value := range changed {
		before, was := former[key].(map[string]any)
		switch typed := value.(type) {
		case map[string]any:
			if was {
				mended(typed, before)
			}
		case []any:
			if was && len(typed) == 0 {
				changed[key] = map[string]any{}
			}
		}
	}
	return changed
}

// runLua runs a script as Argo CD does (v3.1, util/lua/lua.go: runLua): the libraries base, package and table and no others, one
// second, the object as the global obj. Its safe os (time and date) is left out: a script that asks for the time fails here.
func runLua(object *unstructured.Unstructured, script string, into any) error {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		opened := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(opened, lua.LString(library.name)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoString(script); err != nil {
		return err
	}
	text, err := luajson.Encode(state.Get(-1))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// toLua is Argo CD's decodeValue: whole numbers become Lua's numbers too.
func toLua(state *lua.LState, value any) lua.LValue {
	switch typed := value.(type) {
	case int64:
		return lua.LNumber(typed)
	case []any:
		table := state.CreateTable(len(typed), 0)
		for _, item := range typed {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(typed))
		for key, item := range typed {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	default:
		return luajson.DecodeValue(state, value)
	}
}
