// A stand-in for a vendor's device plugin: it advertises made-up devices on a
// real kubelet and hands out their numbers as environment, so that scheduling,
// queueing and allocation are real where the hardware is not.
//
// "dev/cluster up --ipus N" runs it as a DaemonSet. PUT /devices/3 with the body
// "Unhealthy" makes a stand-in fall ill, "Healthy" makes it recover.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

func main() {
	resource := flag.String("resource", "graphcore.ai/ipu", "name of the extended resource to advertise")
	count := flag.Int("count", 4, "how many devices to advertise")
	folder := flag.String("folder", pluginapi.DevicePluginPath, "the kubelet's folder of device-plugin sockets")
	health := flag.String("health", ":8080", "address that answers /healthz, 200 while registered, and takes PUT /devices/NUMBER")
	flag.Parse()
	if *count < 1 {
		log.Fatalf("--count: %d; expected at least 1", *count)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	plugin := newPlugin(*resource, *count)
	go func() {
		if err := serveHealth(ctx, *health, plugin); err != nil {
			log.Fatalf("--health %s: %v", *health, err)
		}
	}()
	if err := keepRegistered(ctx, plugin, *folder); err != nil {
		log.Fatal(err)
	}
}

func serveHealth(ctx context.Context, address string, plugin *plugin) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !plugin.registered.Load() {
			http.Error(w, "not registered with the kubelet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("PUT /devices/{number}", func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 100))
		if err == nil {
			err = plugin.setHealth(request.PathValue("number"), strings.TrimSpace(string(body)))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// keepRegistered serves and registers anew whenever the kubelet starts: it
// then empties the folder, our socket included, and makes its own socket new.
func keepRegistered(ctx context.Context, plugin *plugin, folder string) error {
	own := filepath.Join(folder, "xray-standin.sock")
	kubelet := filepath.Join(folder, "kubelet.sock")
	for ctx.Err() == nil {
		registration, err := serveAndRegister(ctx, plugin, own, kubelet)
		if err != nil {
			log.Printf("not registered: %v; trying again", err)
			sleep(ctx, time.Second)
			continue
		}
		log.Printf("registered %d stand-ins of %s", plugin.count, plugin.resource)
		plugin.registered.Store(true)
		for ctx.Err() == nil && registration.holds() {
			sleep(ctx, time.Second)
		}
		plugin.registered.Store(false)
		registration.server.Stop()
	}
	return nil
}

func sleep(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}
