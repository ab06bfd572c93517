// Runs the API server's own admission plug-in for mutating policies over pods, without an API server.
//
// Standard input: YAML documents, in any order: one MutatingAdmissionPolicy, its binding, namespaces, and pods to
// create. Standard output: one JSON object per pod, in order. Exit code 1 if the input cannot be used.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	dynamic "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
)

// What became of one pod.
type outcome struct {
	// The pod as it was understood.
	Before *core.Pod `json:"before"`
	// The pod after the policy; like before if the policy does not hold for it, or failed open.
	After *core.Pod `json:"after"`
	// Why the pod is refused.
	Refused string `json:"refused,omitempty"`
	// What went wrong in the policy. Its failurePolicy decides if that shows above.
	Failed string `json:"failed,omitempty"`
}

// What standard input brought.
type input struct {
	policy  *admissionregistration.MutatingAdmissionPolicy
	cluster []runtime.Object
	pods    []*core.Pod
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(stdin io.Reader, stdout io.Writer) error {
	in, err := read(stdin)
	if err != nil {
		return err
	}
	if in.policy == nil {
		return errors.New("there is no MutatingAdmissionPolicy")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	plugin, err := start(ctx, append(in.cluster, in.policy))
	if err != nil {
		return err
	}
	// A policy that fails open tells nobody what went wrong: the same policy, failing closed, does.
	strict := in.policy.DeepCopy()
	fail := admissionregistration.Fail
	strict.Spec.FailurePolicy = &fail
	revealing, err := start(ctx, append(in.cluster, strict))
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(stdout)
	for _, pod := range in.pods {
		var result outcome
		result.Before = pod
		result.After, result.Refused = admit(ctx, plugin, pod)
		_, result.Failed = admit(ctx, revealing, pod)
		if err := encoder.Encode(result); err != nil {
			return err
		}
	}
	return nil
}

// Reads all documents. Unknown and repeated fields are errors.
func read(from io.Reader) (*input, error) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(from))
	in := &input{}
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return in, nil
		}
		if err != nil {
			return nil, err
		}
		object, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("cannot read %v: %w", kind, err)
		}
		switch object := object.(type) {
		case *admissionregistration.MutatingAdmissionPolicy:
			object.Spec.MatchConstraints = withDefaults(object.Spec.MatchConstraints)
			in.policy = object
		case *admissionregistration.MutatingAdmissionPolicyBinding:
			object.Spec.MatchResources = withDefaults(object.Spec.MatchResources)
			in.cluster = append(in.cluster, object)
		case *core.Namespace:
			in.cluster = append(in.cluster, object)
		case *core.Pod:
			in.pods = append(in.pods, object)
		default:
			return nil, fmt.Errorf("%v is not expected here", kind)
		}
	}
}

// What an API server fills in when it stores a policy or a binding. The code for that is not in the library; the
// values are those of the API reference.
func withDefaults(match *admissionregistration.MatchResources) *admissionregistration.MatchResources {
	if match == nil {
		return nil
	}
	if match.NamespaceSelector == nil {
		match.NamespaceSelector = &metav1.LabelSelector{}
	}
	if match.ObjectSelector == nil {
		match.ObjectSelector = &metav1.LabelSelector{}
	}
	if match.MatchPolicy == nil {
		equivalent := admissionregistration.Equivalent
		match.MatchPolicy = &equivalent
	}
	for i := range match.ResourceRules {
		if match.ResourceRules[i].Scope == nil {
			all := admissionregistration.AllScopes
			match.ResourceRules[i].Scope = &all
		}
	}
	return match
}

// A client of a cluster that holds nothing but some objects, and has the API server's description of a pod.
type client struct {
	*fake.Clientset
}

type described struct {
	discovery.DiscoveryInterface
}

func (c client) Discovery() discovery.DiscoveryInterface {
	return described{c.Clientset.Discovery()}
}

func (described) OpenAPIV3() openapi.Client {
	return openapitest.NewEmbeddedFileClient()
}

// Starts the plug-in on a cluster with these objects.
func start(ctx context.Context, cluster []runtime.Object) (*mutating.Plugin, error) {
	plugin, err := mutating.NewPlugin(nil)
	if err != nil {
		return nil, err
	}
	var clientset kubernetes.Interface = client{fake.NewClientset(cluster...)}
	factory := informers.NewSharedInformerFactory(clientset, 0)
	initializer.New(
		clientset,
		dynamic.NewSimpleDynamicClient(scheme.Scheme),
		factory,
		authorizerfactory.NewAlwaysDenyAuthorizer(),
		feature.DefaultFeatureGate,
		compatibility.DefaultBuildEffectiveVersion(),
		ctx.Done(),
		meta.NewDefaultRESTMapper(nil),
	).Initialize(plugin)
	if err := plugin.ValidateInitialization(); err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if !plugin.WaitForReady() {
		return nil, errors.New("the plug-in does not become ready")
	}
	return plugin, nil
}

// Asks to create a copy of the pod; gives back what it has become, and why it is refused.
func admit(ctx context.Context, plugin *mutating.Plugin, pod *core.Pod) (*core.Pod, string) {
	// The plug-in learns the description of pods in the background, and until then answers so.
	deadline := time.Now().Add(time.Minute)
	for {
		created := pod.DeepCopy()
		attributes := admission.NewAttributesRecord(
			created, nil, core.SchemeGroupVersion.WithKind("Pod"), pod.Namespace, pod.Name,
			core.SchemeGroupVersion.WithResource("pods"), "", admission.Create, nil, false,
			&user.DefaultInfo{Name: "somebody"},
		)
		err := plugin.Admit(ctx, attributes, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
		switch {
		case err == nil:
			// The plug-in's conversion takes it off.
			created.SetGroupVersionKind(pod.GroupVersionKind())
			return created, ""
		case apierrors.IsServiceUnavailable(err) && time.Now().Before(deadline):
			time.Sleep(10 * time.Millisecond)
		default:
			return created, err.Error()
		}
	}
}
