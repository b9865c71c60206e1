// What GitOps tools make of objects, by their own libraries: kstatus (as Helm, Flux and kubectl plugins read it), Flux's
// health check expressions, and Argo CD's health and actions in Lua. Called by tests/integration/gitops.py.
//
// stdin: a JSON array of objects, as the API server gives them. stdout: a JSON array with an answer for each.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// answer is what each tool says of one object.
type answer struct {
	Kstatus string     `json:"kstatus"`
	Message string     `json:"message"` // of kstatus
	Flux    string     `json:"flux"`    // by the expressions for its kind; empty where there are none
	Argo    argoAnswer `json:"argo"`
}

func main() {
	argocd := flag.String("argocd-cm", "", "file with a ConfigMap argocd-cm")
	kustomization := flag.String("kustomization", "", "file with a Kustomization of Flux")
	flag.Parse()
	if err := run(*argocd, *kustomization); err != nil {
		fmt.Fprintln(os.Stderr, "gitops:", err)
		os.Exit(1)
	}
}

func run(argocd, kustomization string) error {
	customizations, err := readCustomizations(argocd)
	if err != nil {
		return err
	}
	expressions, err := readExpressions(kustomization)
	if err != nil {
		return err
	}
	var texts []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
		return fmt.Errorf("stdin: %w", err)
	}
	answers := make([]answer, 0, len(texts))
	for _, text := range texts {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		told, err := ask(object, customizations, expressions)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", object.GetKind(), object.GetName(), err)
		}
		answers = append(answers, told)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func ask(object *unstructured.Unstructured, argo customizations, flux expressions) (answer, error) {
	computed, err := status.Compute(object)
	if err != nil {
		return answer{}, err
	}
	told := answer{Kstatus: string(computed.Status), Message: computed.Message}
	if told.Flux, err = flux.evaluate(object); err != nil {
		return answer{}, err
	}
	told.Argo, err = argo.ask(object)
	return told, err
}
