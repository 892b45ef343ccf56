{{/* Value of DRIVER_POD as JSON. An id without value is written as null: left out, it would be the service's default. */}}
{{- define "hattivatti.driverPod" -}}
{{- $pod := deepCopy .Values.driver.pod -}}
{{- range $id := list "runAsUser" "runAsGroup" "fsGroup" -}}
  {{- $_ := set $pod $id (index $pod $id) -}}
{{- end -}}
{{- $pod | toJson -}}
{{- end -}}

{{/* What is wrong in driver.pod beyond its schema, as a JSON list; the service reads it again and knows affinity, too. */}}
{{- define "hattivatti.driverProblems" -}}
{{- $problems := list -}}
{{- $domains := "hattivatti[.]geneticscores[.]org|app[.]kubernetes[.]io|batch[.]kubernetes[.]io|kueue[.]x-k8s[.]io|container[.]apparmor[.]security[.]beta[.]kubernetes[.]io|seccomp[.]security[.]alpha[.]kubernetes[.]io" -}}
{{- $reserved := printf "^((.*[.])?(%s)/.*|job-name|controller-uid|cluster-autoscaler[.]kubernetes[.]io/safe-to-evict)$" $domains -}}
{{- range $map := list "labels" "annotations" -}}
  {{- range $key := keys (index $.Values.driver.pod $map) | sortAlpha -}}
    {{- if regexMatch $reserved $key -}}
      {{- $problems = append $problems (printf "driver.pod.%s: the key %s belongs to pyvatti or Kubernetes" $map $key) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $at, $one := .Values.driver.pod.tolerations -}}
  {{- if and (eq ($one.operator | default "Equal") "Exists") $one.value -}}
    {{- $problems = append $problems (printf "driver.pod.tolerations.%d: value must be empty where operator is Exists" $at) -}}
  {{- end -}}
  {{- if and (eq ($one.operator | default "Equal") "Equal") (not $one.key) -}}
    {{- $problems = append $problems (printf "driver.pod.tolerations.%d: key must be set unless operator is Exists" $at) -}}
  {{- end -}}
  {{- if and (hasKey $one "tolerationSeconds") (ne ($one.effect | default "") "NoExecute") -}}
    {{- $problems = append $problems (printf "driver.pod.tolerations.%d: tolerationSeconds needs effect NoExecute" $at) -}}
  {{- end -}}
{{- end -}}
{{- range $path, $profile := dict "driver.pod" .Values.driver.pod.seccompProfile "securityContext" .Values.securityContext.seccompProfile -}}
  {{- if ne (eq $profile.type "Localhost") (hasKey $profile "localhostProfile") -}}
    {{- $problems = append $problems (printf "%s.seccompProfile: localhostProfile must be set where type is Localhost, there alone" $path) -}}
  {{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}

{{/* What driver pods may call, as items of a YAML list. */}}
{{- define "hattivatti.driverEgress" -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- $driver := .Values.networkPolicy.driver -}}
{{- include "hattivatti.commonEgress" . -}}
{{- /* Without a token it has nothing to say there. */}}
{{- if and .Values.config.driverServiceAccountToken $egress.kubernetesApi.ports }}
{{ include "hattivatti.egressRule" (list $egress.kubernetesApi.to $egress.kubernetesApi.ports) }}
{{- end }}
{{- $addresses := list .Values.config.towerApiUrl .Values.config.globusDomain .Values.config.keyHandlerUrl -}}
{{- $ports := include "hattivatti.ports" (list $driver.external.ports $addresses) | fromJsonArray }}
{{- if and $driver.external.to $ports }}
{{ include "hattivatti.egressRule" (list $driver.external.to $ports) }}
{{- end }}
{{- with $driver.extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}
