{{/* Name of every object: the release's name, so that release "hattivatti" gives the Service the backend calls. */}}
{{- define "hattivatti.fullname" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,51}[a-z0-9])?$" $name) -}}
{{- fail (printf "release name %q: the Service is named after it, so it must begin with a letter and hold only a-z, 0-9 and -, at most 53; choose another or set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Immutable in a Deployment: never add to these. */}}
{{- define "hattivatti.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "hattivatti.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "hattivatti.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hattivatti
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Name, namespace and labels of one object: list of the root, a suffix of the name, further labels (ours win). */}}
{{- define "hattivatti.metadata" -}}
{{- $root := index . 0 -}}
name: {{ printf "%s%s" (include "hattivatti.fullname" $root) (index . 1) | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- merge (include "hattivatti.labels" $root | fromYaml) (index . 2) | toYaml | nindent 2 }}
{{- end -}}

{{- define "hattivatti.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "hattivatti.fullname" .) -}}
{{- end -}}

{{- define "hattivatti.driverServiceAccountName" -}}
{{- .Values.driver.serviceAccount.name | default (printf "%s-driver" (include "hattivatti.fullname" .)) -}}
{{- end -}}

{{/* Value of INSTANCE: label of the service's objects and name of its Lease. */}}
{{- define "hattivatti.instance" -}}
{{- .Values.config.instance | default (include "hattivatti.fullname" .) -}}
{{- end -}}

{{/* Name of the cluster-wide objects. Neither part holds a full stop, so no two releases share it. */}}
{{- define "hattivatti.policyName" -}}
pyvatti.{{ .Release.Namespace }}.{{ include "hattivatti.fullname" . }}
{{- end -}}

{{- define "hattivatti.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where credentials come from: a JSON object {setting: {name, key, optional}}; settings without a source are left out. */}}
{{- define "hattivatti.secretSources" -}}
{{- $sources := dict -}}
{{- range $setting, $value := .Values.secrets -}}
  {{- $reference := index $.Values.secretRefs $setting -}}
  {{- $variable := $setting | snakecase | upper -}}
  {{- if and (eq $setting "apiTokens") (ne $.Values.config.apiAuth "token") -}}
  {{- else if $reference -}}
    {{- $_ := set $sources $setting (dict "name" $reference.name "key" ($reference.key | default $variable)) -}}
  {{- else if $value -}}
    {{- $_ := set $sources $setting (dict "name" (include "hattivatti.fullname" $) "key" $variable) -}}
  {{- else if $.Values.existingSecret -}}
    {{- $_ := set $sources $setting (dict "name" $.Values.existingSecret "key" $variable "optional" (eq $setting "notifySigningSecret")) -}}
  {{- end -}}
{{- end -}}
{{- $sources | toJson -}}
{{- end -}}

{{/* Credentials the chart's own Secret holds: a JSON object {VARIABLE: value}. */}}
{{- define "hattivatti.ownSecrets" -}}
{{- $own := dict -}}
{{- range $setting, $source := include "hattivatti.secretSources" . | fromJson -}}
  {{- if and (eq $source.name (include "hattivatti.fullname" $)) (index $.Values.secrets $setting) (not (index $.Values.secretRefs $setting)) -}}
    {{- $_ := set $own $source.key (index $.Values.secrets $setting) -}}
  {{- end -}}
{{- end -}}
{{- $own | toJson -}}
{{- end -}}

{{/* Path of the operator's templates inside the container. */}}
{{- define "hattivatti.templatesDir" -}}
{{- if or .Values.templates.files .Values.templates.existingConfigMap -}}
/etc/pyvatti/templates
{{- else -}}
{{- .Values.config.templatesDir -}}
{{- end -}}
{{- end -}}

{{/* Plain settings as a JSON object {VARIABLE: text}. toJson, not toString: 1000000 must not become 1e+06. */}}
{{- define "hattivatti.environment" -}}
{{- $environment := dict
    "NAMESPACE" .Release.Namespace
    "INSTANCE" (include "hattivatti.instance" .)
    "DRIVER_POD" (include "hattivatti.driverPod" .)
    "DRIVER_SERVICE_ACCOUNT" (include "hattivatti.driverServiceAccountName" .)
    "KUBERNETES_VERSION" (.Values.config.kubernetesVersion | default (regexFind "^v?[0-9]+[.][0-9]+" .Capabilities.KubeVersion.Version | trimPrefix "v"))
    "TEMPLATES_DIR" (include "hattivatti.templatesDir" .) -}}
{{- range $setting, $value := omit .Values.config "instance" "kubernetesVersion" "templatesDir" -}}
  {{- $_ := set $environment ($setting | snakecase | upper) (kindIs "string" $value | ternary $value ($value | toJson)) -}}
{{- end -}}
{{- $service := include "hattivatti.fullname" . -}}
{{- if ne $service (include "hattivatti.instance" .) -}}
  {{- $_ := set $environment "ALLOWED_HOSTS" (compact (list $service .Values.config.allowedHosts) | join ",") -}}
{{- end -}}
{{- range $variable, $value := $environment -}}
  {{- if or (eq $value "") (eq $value "null") -}}
    {{- $_ := unset $environment $variable -}}
  {{- end -}}
{{- end -}}
{{- $environment | toJson -}}
{{- end -}}

{{- define "hattivatti.podSecurityContext" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- $id := index $.Values.securityContext $key }}
{{- if not (kindIs "invalid" $id) }}
{{ $key }}: {{ $id | int64 }}
{{- end }}
{{- end }}
seccompProfile:
  {{- toYaml .Values.securityContext.seccompProfile | nindent 2 }}
{{- end -}}

{{/* Ports of what is outside, as a JSON list: those given, and what the addresses (a list) say beside them; none where none is given. */}}
{{- define "hattivatti.ports" -}}
{{- $ports := list -}}
{{- range index . 0 -}}
  {{- $ports = append $ports (int .) -}}
{{- end -}}
{{- if $ports -}}
  {{- range index . 1 -}}
    {{- $port := regexFind "^https?://[^/?#]*" . | regexFind ":[0-9]{1,5}$" | trimPrefix ":" | int -}}
    {{- if and (gt $port 0) (lt $port 65536) -}}
      {{- $ports = append $ports $port -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{- define "hattivatti.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Egress rules that the service and the driver pods share: DNS and Google's metadata server, as items of a YAML list. */}}
{{- define "hattivatti.commonEgress" -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- if and $egress.dns $egress.dnsPorts }}
- to:
    {{- toYaml $egress.dns | nindent 4 }}
  ports:
    {{- range $egress.dnsPorts }}
    - port: {{ . | int }}
      protocol: UDP
    - port: {{ . | int }}
      protocol: TCP
    {{- end }}
{{- end }}
{{- if $egress.metadataServer.enabled }}
# cloud.google.com/kubernetes-engine/docs/how-to/network-policy: Workload Identity
- to:
    - ipBlock:
        cidr: 169.254.169.252/32
  ports:
    - port: 988
      protocol: TCP
- to:
    - ipBlock:
        cidr: 169.254.169.254/32
  ports:
    - port: 80
      protocol: TCP
{{- end }}
{{- end -}}

{{/* One egress rule: list of peers and ports. An empty list of peers means "everybody" to Kubernetes. */}}
{{- define "hattivatti.egressRule" -}}
- ports:
    {{- range index . 1 }}
    - port: {{ . | int }}
      protocol: TCP
    {{- end }}
  {{- with index . 0 }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
