package main

import (
	"context"
	"os"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// expressions are the evaluators of a Kustomization, by the kind that they are for.
type expressions map[schema.GroupVersionKind]*cel.StatusEvaluator

func readExpressions(path string) (expressions, error) {
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	if err := readYAML(path, &kustomization); err != nil {
		return nil, err
	}
	found := expressions{}
	for _, check := range kustomization.Spec.HealthCheckExprs {
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return nil, err
		}
		found[schema.FromAPIVersionAndKind(check.APIVersion, check.Kind)] = evaluator
	}
	return found, nil
}

// evaluate returns Current, InProgress or Failed, or nothing for a kind without expressions.
func (e expressions) evaluate(object *unstructured.Unstructured) (string, error) {
	evaluator, ok := e[object.GroupVersionKind()]
	if !ok {
		return "", nil
	}
	result, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return "", err
	}
	return string(result.Status), nil
}

// readYAML leaves out fields that the type does not have; no path is an empty document.
func readYAML(path string, into any) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return yaml.Unmarshal(text, into)
}
