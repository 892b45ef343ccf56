{{/* Everything that can be refused before an object exists, in one message. */}}
{{- define "hattivatti.check" -}}
{{- $problems := list -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,37}[a-z0-9])?$" .Release.Namespace) -}}
  {{- $problems = append $problems (printf "namespace %q: bucket and run names begin with it, so it must begin with a letter and have at most 39 characters" .Release.Namespace) -}}
{{- end -}}
{{- range $setting := list "apiAuth" "towerWorkspace" "globusDomain" "globusClientId" "globusScopes" "keyHandlerUrl" "gcpProject" "gcpLocation" "notifyUrl" -}}
  {{- if eq (index $.Values.config $setting | toString) "" -}}
    {{- $problems = append $problems (printf "config.%s: must be set" $setting) -}}
  {{- end -}}
{{- end -}}
{{- range $setting := list "towerApiUrl" "globusDomain" "keyHandlerUrl" -}}
  {{- $address := index $.Values.config $setting | toString -}}
  {{- $isHere := regexMatch "^http://(localhost|127[.][0-9.]+|\\[::1\\])([:/]|$)" $address -}}
  {{- if and (hasPrefix "http:" $address) (not $isHere) (not $.Values.config.allowHttp) -}}
    {{- $problems = append $problems (printf "config.%s: must begin with https://, for credentials are sent there; or set config.allowHttp" $setting) -}}
  {{- end -}}
{{- end -}}
{{- $sources := include "hattivatti.secretSources" . | fromJson -}}
{{- range $setting := keys (omit .Values.secrets "notifySigningSecret") | sortAlpha -}}
  {{- if and (not (hasKey $sources $setting)) (or (ne $setting "apiTokens") (eq $.Values.config.apiAuth "token")) -}}
    {{- $problems = append $problems (printf "secrets.%s: must be set, or existingSecret, or secretRefs.%s" $setting $setting) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.config -}}
  {{- if not (and (gt (float64 .leaseDuration) (float64 .renewDeadline)) (gt (float64 .renewDeadline) (mulf 1.2 .retryPeriod))) -}}
    {{- $problems = append $problems "config.leaseDuration > config.renewDeadline > 1.2 x config.retryPeriod must hold" -}}
  {{- end -}}
  {{- if and .fusion (not .wave) -}}
    {{- $problems = append $problems "config.fusion: needs config.wave" -}}
  {{- end -}}
{{- end -}}
{{- /* The grace runs from the first second of the drain; 30 s are for the Lease and the last log lines. */}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) (addf .Values.config.stopGrace .Values.drainSeconds 30) -}}
  {{- $problems = append $problems "terminationGracePeriodSeconds: must be more than config.stopGrace + drainSeconds + 30, or the pod is killed at its work" -}}
{{- end -}}
{{- if and .Values.admissionPolicy.enabled (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) -}}
  {{- $problems = append $problems (printf "admissionPolicy.enabled: needs Kubernetes 1.30 or newer, which serves ValidatingAdmissionPolicy as v1; this one is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (has "Deny" .Values.admissionPolicy.actions) (has "Warn" .Values.admissionPolicy.actions) -}}
  {{- $problems = append $problems "admissionPolicy.actions: Deny and Warn exclude each other" -}}
{{- end -}}
{{- if and .Values.templates.files .Values.templates.existingConfigMap -}}
  {{- $problems = append $problems "templates: set files or existingConfigMap, not both" -}}
{{- end -}}
{{- if and .Values.config.templatesDir (or .Values.templates.files .Values.templates.existingConfigMap) -}}
  {{- $problems = append $problems "config.templatesDir: cannot be set together with templates" -}}
{{- end -}}
{{- range $path, $account := dict "serviceAccount" .Values.serviceAccount "driver.serviceAccount" .Values.driver.serviceAccount -}}
  {{- if not (or $account.create $account.name) -}}
    {{- $problems = append $problems (printf "%s.name: must be set while %s.create is false" $path $path) -}}
  {{- end -}}
{{- end -}}
{{- if eq (include "hattivatti.serviceAccountName" .) (include "hattivatti.driverServiceAccountName" .) -}}
  {{- $problems = append $problems "driver.serviceAccount.name: must not be that of the service, whose rights the driver pods would get" -}}
{{- end -}}
{{- $problems = concat $problems (include "hattivatti.driverProblems" . | fromJsonArray) -}}
{{- range $kind := list "ingress" "httpRoute" -}}
  {{- if and (index $.Values $kind).enabled (ne $.Values.config.apiAuth "token") -}}
    {{- $problems = append $problems (printf "%s.enabled: an API that is reachable from outside needs config.apiAuth token" $kind) -}}
  {{- end -}}
{{- end -}}
{{- if and (ne .Values.service.type "ClusterIP") (ne .Values.config.apiAuth "token") -}}
  {{- $problems = append $problems "service.type: an API that is reachable from outside needs config.apiAuth token" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
  {{- $problems = append $problems "ingress.host: must be set while ingress.enabled" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not (or .Values.ingress.tlsSecret .Values.ingress.tlsElsewhere)) -}}
  {{- $problems = append $problems "ingress.tlsSecret: must be set while ingress.enabled, or callers' tokens are sent in clear; set ingress.tlsElsewhere where TLS has another certificate" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
  {{- $problems = append $problems "httpRoute.parentRefs: must be set while httpRoute.enabled" -}}
{{- end -}}
{{- if and .Values.resourceQuota.enabled (not .Values.resourceQuota.hard) -}}
  {{- $problems = append $problems "resourceQuota.hard: must be set while resourceQuota.enabled" -}}
{{- end -}}
{{- if and .Values.limitRange.enabled (not .Values.limitRange.limits) -}}
  {{- $problems = append $problems "limitRange.limits: must be set while limitRange.enabled" -}}
{{- end -}}
{{- /* The quota admission refuses pods that do not say how much of these they use. */}}
{{- if and .Values.resourceQuota.enabled (not .Values.limitRange.enabled) -}}
  {{- range $resource := list "cpu" "memory" -}}
    {{- $limited := hasKey ($.Values.resources.limits | default dict) $resource -}}
    {{- $requested := or $limited (hasKey ($.Values.resources.requests | default dict) $resource) -}}
    {{- range $name, $said := dict $resource $requested (printf "requests.%s" $resource) $requested (printf "limits.%s" $resource) $limited -}}
      {{- if and (hasKey $.Values.resourceQuota.hard $name) (not $said) -}}
        {{- $problems = append $problems (printf "resourceQuota.hard.%s: needs the like under resources, or a limitRange with defaults" $name) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $variables := list -}}
{{- range .Values.extraEnv -}}
  {{- if has .name $variables -}}
    {{- $problems = append $problems (printf "extraEnv: %s is there twice" .name) -}}
  {{- end -}}
  {{- $variables = append $variables .name -}}
  {{- if or (hasKey (include "hattivatti.environment" $ | fromJson) .name) (hasKey $.Values.config (.name | lower | camelcase | untitle)) (hasKey $.Values.secrets (.name | lower | camelcase | untitle)) (has .name (list "NAMESPACE" "DRIVER_POD" "DRIVER_SERVICE_ACCOUNT" "GOOGLE_APPLICATION_CREDENTIALS")) -}}
    {{- $problems = append $problems (printf "extraEnv: %s is set by another value of this chart" .name) -}}
  {{- end -}}
{{- end -}}
{{- $volumes := list "tmp" -}}
{{- range .Values.extraVolumes -}}
  {{- if has .name (concat $volumes (list "google" "templates")) -}}
    {{- $problems = append $problems (printf "extraVolumes: the name %s is taken" .name) -}}
  {{- end -}}
  {{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $paths := list "/tmp" "/etc/pyvatti/google" "/etc/pyvatti/templates" -}}
{{- range .Values.extraVolumeMounts -}}
  {{- if not (has .name $volumes) -}}
    {{- $problems = append $problems (printf "extraVolumeMounts: %s is not among extraVolumes" .name) -}}
  {{- end -}}
  {{- if has .mountPath $paths -}}
    {{- $problems = append $problems (printf "extraVolumeMounts: the path %s is taken" .mountPath) -}}
  {{- end -}}
  {{- $paths = append $paths .mountPath -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\nThis cannot be installed yet:\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}
