// Kubernetes, etcd and kubectl as one binary, for a development cluster on a
// machine without a container engine. dev/cluster/tools.py builds it; the
// program is picked by argv[0] or, called as "k8s NAME ...", by the first
// argument.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func run(name string) {
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	case "stop-pods":
		if err := stopPods(); err != nil {
			fmt.Fprintln(os.Stderr, "stop-pods:", err)
			os.Exit(1)
		}
	default:
		os.Exit(cli.Run(components[name]()))
	}
}

func known(name string) bool {
	return name == "etcd" || name == "kubectl" || name == "stop-pods" || components[name] != nil
}

func main() {
	name := filepath.Base(os.Args[0])
	if !known(name) && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	if !known(name) {
		fmt.Fprintf(os.Stderr, "k8s: %q is no program in here: etcd, kubectl, kubelet, kube-apiserver, "+
			"kube-controller-manager, kube-scheduler and kube-proxy are\n", name)
		os.Exit(2)
	}
	run(name)
}
